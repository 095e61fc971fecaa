import { checkName } from "../sdk";

/** The element of index.html with this id. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element as T;
}

/** Makes an element. Strings become text, never markup. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Makes a button that does something. */
export function button(text: string, onClick: () => void): HTMLButtonElement {
  const element = el("button", "quiet", text);
  element.type = "button";
  element.addEventListener("click", onClick);
  return element;
}

/** Makes parent's children exactly these, and touches only what differs. */
export function setChildren(parent: Node, wanted: readonly Node[]): void {
  let at = parent.firstChild;
  for (const node of wanted) {
    if (node === at) {
      at = at.nextSibling;
      continue;
    }
    // Removing the one in the way is the cheap case of lines cut from the top.
    if (at && at.nextSibling === node) {
      const gone = at;
      at = node.nextSibling;
      parent.removeChild(gone);
      continue;
    }
    parent.insertBefore(node, at);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    parent.removeChild(gone);
  }
}

/** Sets text only if it differs, so that live regions stay quiet. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** A round with the first letter of a name, in the name's colour. */
export function setAvatar(element: HTMLElement, name: string): void {
  let hash = 0;
  for (const unit of name) hash = (hash * 31 + unit.codePointAt(0)!) >>> 0;
  element.className = `avatar hue-${hash % 10}`;
  element.textContent = [...name][0]?.toUpperCase() ?? "?";
  element.ariaHidden = "true";
}

/**
 * Reads a name that a person has typed, in the form that the server takes.
 * If it is none, says so at the field and returns nothing.
 */
export function readName(input: HTMLInputElement, what: string): string | undefined {
  const name = input.value.trim().normalize("NFC");
  const wrong = checkName("name", name)?.fields[0];
  input.setCustomValidity(wrong ? `${what} ${wrong.description}.` : "");
  input.addEventListener("input", () => input.setCustomValidity(""), { once: true });
  return input.reportValidity() ? name : undefined;
}
