"""autometa: AutoML for few-shot image classification under a time and memory budget."""
