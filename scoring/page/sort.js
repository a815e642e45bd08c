(() => {
  const value = (row, place) => {
    const cell = row.cells[place];
    return cell.dataset.value ?? cell.textContent.trim();
  };
  const compare = (a, b) => {
    const [x, y] = [Number.parseFloat(a), Number.parseFloat(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  const isKnown = (text) => text !== "" && text !== "–";
  const sort = (table, th, place) => {
    const sign = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const rows = [...table.tBodies[0].rows].map((row) => [value(row, place), row]);
    const [known, rest] = [rows.filter(([text]) => isKnown(text)), rows.filter(([text]) => !isKnown(text))];
    known.sort(([a], [b]) => sign * compare(a, b));
    table.tBodies[0].append(...[...known, ...rest].map(([, row]) => row));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((th, place) => {
      if ("fixed" in th.dataset) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...th.childNodes);
      button.addEventListener("click", () => sort(table, th, place));
      th.append(button);
    });
  }
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.print")) details.open = true;
  });
})();
