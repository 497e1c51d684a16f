// Two texts side by side: which lines are the same.

// Lists with more differences than this are not matched: their lines are shown side by side in order.
const MOST_STEPS = 600;
const AROUND = 3;

/**
 * Compare two lists of lines.
 *
 * @returns rows [{left, right, isSame}]; left or right is null where only the other list has a line.
 */
export function compare(left, right) {
  let start = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) start += 1;
  let end = 0;
  while (end < left.length - start && end < right.length - start && left.at(-1 - end) === right.at(-1 - end)) end += 1;
  const rows = [];
  const same = (line) => rows.push({ left: line, right: line, isSame: true });
  left.slice(0, start).forEach(same);
  const a = left.slice(start, left.length - end);
  const b = right.slice(start, right.length - end);
  let atA = 0;
  let atB = 0;
  for (const [nextA, nextB] of [...common(a, b), [a.length, b.length]]) {
    const many = Math.max(nextA - atA, nextB - atB);
    for (let step = 0; step < many; step += 1) {
      rows.push({ left: atA + step < nextA ? a[atA + step] : null, right: atB + step < nextB ? b[atB + step] : null, isSame: false });
    }
    if (nextA < a.length) same(a[nextA]);
    atA = nextA + 1;
    atB = nextB + 1;
  }
  left.slice(left.length - end).forEach(same);
  return rows;
}

/**
 * Fold up lines that are the same, except a few around each difference.
 *
 * @returns rows as of `compare`, and {folded: count} in place of the others.
 */
export function folded(rows) {
  const near = new Set();
  rows.forEach((row, at) => {
    if (!row.isSame) for (let one = at - AROUND; one <= at + AROUND; one += 1) near.add(one);
  });
  const found = [];
  rows.forEach((row, at) => {
    if (near.has(at)) found.push(row);
    else if (found.at(-1)?.folded) found.at(-1).folded.push(row);
    else found.push({ folded: [row] });
  });
  // One or two lines take no more room than the row that would replace them.
  return found.flatMap((one) => (one.folded === undefined ? one : one.folded.length <= 2 ? one.folded : { folded: one.folded.length }));
}

/** Return the pairs of places of a longest common subsequence (Myers); none if the lists differ too much. */
function common(a, b) {
  const furthest = new Map([[1, 0]]);
  const steps = [];
  for (let d = 0; d <= Math.min(a.length + b.length, MOST_STEPS); d += 1) {
    steps.push(new Map(furthest));
    for (let k = -d; k <= d; k += 2) {
      const goesDown = k === -d || (k !== d && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
      let x = goesDown ? furthest.get(k + 1) : furthest.get(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      furthest.set(k, x);
      if (x >= a.length && x - k >= b.length) return walkBack(a, b, steps, d);
    }
  }
  return [];
}

function walkBack(a, b, steps, last) {
  const pairs = [];
  let x = a.length;
  let y = b.length;
  for (let d = last; d >= 0; d -= 1) {
    const furthest = steps[d];
    const k = x - y;
    const goesDown = k === -d || (k !== d && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
    const before = goesDown ? k + 1 : k - 1;
    const fromX = d === 0 ? 0 : furthest.get(before);
    const fromY = d === 0 ? 0 : fromX - before;
    while (x > fromX && y > fromY && a[x - 1] === b[y - 1]) {
      x -= 1;
      y -= 1;
      pairs.push([x, y]);
    }
    x = fromX;
    y = fromY;
  }
  return pairs.reverse();
}
