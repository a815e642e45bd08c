. /tmp/v/env.sh; cd /tmp/v
while read l; do python /tmp/v/syn2.py secs=35 start=5 inst=4 $l 2>&1 | tail -2 | head -1 | sed "s/^/$l : /"; done
