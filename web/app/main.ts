import { checkName } from "../sdk";
import { Chat } from "./chat";
import { byId, readName } from "./dom";

/** This tab's name; another tab may have another. */
const nameKey = "reprise/page/name";
/** The name a new tab proposes. */
const lastNameKey = "reprise/last-name";

function welcome(): void {
  const input = byId<HTMLInputElement>("name");
  input.value = localStorage.getItem(lastNameKey) ?? "";
  byId("welcome").hidden = false;
  input.focus();
}

function start(name: string): void {
  sessionStorage.setItem(nameKey, name);
  localStorage.setItem(lastNameKey, name);
  byId("welcome").hidden = true;
  const chat = new Chat(name);
  byId("sign-out").addEventListener(
    "click",
    () => {
      sessionStorage.removeItem(nameKey);
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

const name = sessionStorage.getItem(nameKey);
if (name && !checkName("name", name)) start(name);
else welcome();
