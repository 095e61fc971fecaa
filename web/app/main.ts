import { checkName } from "../sdk";
import { Chat } from "./chat";
import { byId, readName } from "./dom";
import { browserMemory, tabMemory } from "./memory";

/** This tab's name; another tab may have another. */
const nameKey = "reprise/page/name";
/** The name a new tab proposes. */
const lastNameKey = "reprise/last-name";

function welcome(): void {
  const input = byId<HTMLInputElement>("name");
  input.value = browserMemory.get(lastNameKey) ?? "";
  byId("welcome").hidden = false;
  input.focus();
}

function start(name: string): void {
  tabMemory.set(nameKey, name);
  browserMemory.set(lastNameKey, name);
  byId("welcome").hidden = true;
  const chat = new Chat(name);
  byId("sign-out").addEventListener(
    "click",
    () => {
      tabMemory.remove(nameKey);
      chat.end();
      welcome();
    },
    { once: true },
  );
}

byId("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = readName(byId<HTMLInputElement>("name"), "A name");
  if (name) start(name);
});

const name = tabMemory.get(nameKey);
if (name && !checkName("name", name)) start(name);
else welcome();
