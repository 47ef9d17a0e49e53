// Puts what the server sent into the page, and leaves alone what is the same: focus, selection and the place of a screen
// reader stay where they are. The server has escaped everything.

function setHtml(element, html) {
  if (element.dataset.html !== html) {
    element.innerHTML = html;
    element.dataset.html = html;
  }
}

function cellsOf(html) {
  const template = document.createElement("template");
  template.innerHTML = `<table><tbody><tr>${html}</tr></tbody></table>`;
  return [...template.content.querySelector("tr").cells];
}

function patchRow(row, html) {
  const next = cellsOf(html);
  next.forEach((cell, index) => {
    const old = row.cells[index];
    if (!old) {
      row.append(cell);
    } else if (old.outerHTML !== cell.outerHTML) {
      old.replaceWith(cell);
    }
  });
}

function patchTable(body, { keys, rows }) {
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  keys.forEach((key, index) => {
    let row = known.get(key);
    if (!row) {
      row = document.createElement("tr");
      row.dataset.key = key;
    }
    known.delete(key);
    if (key in rows) {
      patchRow(row, rows[key]);
    }
    if (body.rows[index] !== row) {
      body.insertBefore(row, body.rows[index] ?? null);
    }
  });
  known.forEach((row) => row.remove());
}

export function patch(changes) {
  for (const [id, change] of Object.entries(changes)) {
    const element = document.getElementById(id);
    if (element && "html" in change) {
      setHtml(element, change.html);
    } else if (element) {
      patchTable(element, change);
    }
  }
}
