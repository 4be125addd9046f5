// Describes elements and draws them. What is on the page already is kept, with its focus, its scrolling and what is typed into it.
// Data only ever becomes text or an attribute: there is no markup to escape.

const drawn = new WeakMap(); // node -> its key and its properties

/** An element to be: `key` tells it from its siblings of the same tag, `on…` are its handlers, `initial` is a field's first value (what is
 * typed there stays) and `value` one that the page decides, except while somebody is in it. Null and false as children are left out. */
export function h(tag, properties, ...children) {
  return { tag, properties: properties ?? {}, children };
}

/** Makes `parent` hold exactly what is wanted. A node that is wanted again stays in place while others come and go around it. */
export function draw(parent, wanted) {
  const there = new Map([...parent.childNodes].map((node) => [drawn.get(node)?.key, node]));
  const counts = new Map();
  const present = wanted.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false);
  const nodes = present.map((each) => {
    const tag = each.tag ?? "#text";
    const count = counts.get(tag) ?? 0;
    counts.set(tag, count + 1);
    const key = `${tag} ${each.properties?.key ?? `#${count}`}`;
    return each.tag ? element(there.get(key), key, each) : text(there.get(key), key, String(each));
  });
  const staying = new Set(nodes);
  for (const node of [...parent.childNodes]) if (!staying.has(node)) node.remove();
  let next = parent.firstChild;
  for (const node of nodes) {
    if (node === next) next = next.nextSibling;
    else parent.insertBefore(node, next);
  }
}

function text(node, key, value) {
  if (!node) {
    node = document.createTextNode(value);
    drawn.set(node, { key });
  } else if (node.data !== value) node.data = value;
  return node;
}

function element(node, key, { tag, properties, children }) {
  const fresh = !node;
  node ??= document.createElement(tag);
  const before = drawn.get(node)?.properties ?? {};
  for (const name of new Set([...Object.keys(before), ...Object.keys(properties)])) {
    if (before[name] !== properties[name]) set(node, name, properties[name]);
  }
  drawn.set(node, { key, properties });
  draw(node, children);
  if (fresh && "initial" in properties) begin(node, properties.initial);
  const decided = "value" in properties && node !== document.activeElement;
  if (decided && node.value !== String(properties.value)) node.value = properties.value;
  return node;
}

function set(node, name, value) {
  if (["key", "initial", "value"].includes(name)) return;
  if (name.startsWith("on")) node[name] = value ?? null;
  else if (typeof value === "boolean" || value === undefined || value === null) node.toggleAttribute(name, Boolean(value));
  else node.setAttribute(name, value);
}

/** The value that a field has at first, and again after a reset of its form. */
function begin(node, value) {
  if (typeof value === "boolean") node.defaultChecked = node.checked = value;
  else if (node.tagName === "SELECT") for (const option of node.options) option.defaultSelected = option.selected = option.value === value;
  else node.defaultValue = node.value = value;
}
