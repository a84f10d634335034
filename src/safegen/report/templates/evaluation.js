"use strict";
document.documentElement.classList.add("scripted");

// Rows without a figure come last, whichever way the others are sorted.
function compare(first, second, descending) {
  const [a, b] = [first, second].map((cell) => cell.dataset.number ?? "");
  if (a === "" || b === "") return Number(a === "") - Number(b === "");
  return descending ? b - a : a - b;
}

function sort(head) {
  const table = head.closest("table");
  const body = table.tBodies[0];
  const best = head.dataset.first;
  const other = best === "descending" ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === best ? other : best;
  for (const each of head.parentNode.cells) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const column = head.cellIndex;
  const rows = [...body.rows];
  rows.sort((a, b) => compare(a.cells[column], b.cells[column], order === "descending"));
  body.append(...rows);
}

for (const button of document.querySelectorAll("button.sort")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}
