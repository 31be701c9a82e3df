// Lists whose elements stay the same while the items with their keys do.

const lists = new WeakMap(); // parent → Map of key → element

/**
 * keyed makes the children of parent those of the items, in their order. make(item) makes
 * an element, update(element, item) changes it. removing(element) is called before an
 * element is removed. The child that has the focus is never moved, since it would lose it.
 */
export function keyed(parent, items, {key, make, update, removing}) {
  if (!lists.has(parent)) lists.set(parent, new Map());
  const have = lists.get(parent);
  const keys = items.map(key);
  const wanted = new Set(keys);
  for (const [k, e] of have) {
    if (wanted.has(k)) continue;
    removing?.(e);
    e.remove();
    have.delete(k);
  }
  const elements = items.map((item, i) => {
    let e = have.get(keys[i]);
    if (!e) have.set(keys[i], e = make(item));
    update(e, item);
    return e;
  });
  order(parent, elements);
}

// order puts the elements into their order with few moves, and without moving the one with
// the focus.
function order(parent, elements) {
  const pinned = elements.find(e => e.isConnected && e.contains(document.activeElement));
  let next = parent.firstChild;
  for (const e of elements) {
    if (e === next) next = e.nextSibling;
    else if (e === pinned) next = e.nextSibling; // those in between are moved behind it
    else parent.insertBefore(e, next);
  }
}
