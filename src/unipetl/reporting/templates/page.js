
"use strict";
// Headings become buttons that sort their table; without a script the tables are as the page has them.
const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

function key(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : order.compare(String(a), String(b));
}

function sort(table, column, sign) {
  const numbers = table.tHead.rows[0].cells[column].classList.contains("number");
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    const empty = (row) => numbers && typeof key(row, column) !== "number";
    rows.sort((a, b) => empty(a) - empty(b) || sign * compare(key(a, column), key(b, column)));
    body.append(...rows);
  }
}

for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const way = head.getAttribute("aria-sort") === first ? other : first;
      for (const one of heads) one.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way);
      sort(table, column, way === "ascending" ? 1 : -1);
    });
  });
}
