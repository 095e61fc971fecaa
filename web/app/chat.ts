import { createSession, followPage } from "../sdk";
import type { Change, Session } from "../sdk";
import { button, byId, el, readName, setAvatar, setChildren, setText } from "./dom";
import { LogView } from "./log-view";
import { tabMemory } from "./memory";
import { StatusView } from "./status-view";

/** Closer to the end than this, the log follows what comes. */
const followPx = 60;
const noticeMs = 8_000;
const selectedKey = "reprise/page/room";
const lostKey = "reprise/page/lost";

/** The chat page of one user. */
export class Chat {
  readonly #session: Session;
  readonly #status: StatusView;
  readonly #log: LogView;
  readonly #unfollow: () => void;
  readonly #stop = new AbortController();

  #selected = tabMemory.get(selectedKey) ?? "";
  /** Asked for by the person, and not there yet: the receipt of a join may come before the room. */
  #awaited = "";
  /** Whether writing is what comes next, once there is a room to write to. */
  #toText = false;
  /** By room: newest offset that was on the screen. */
  readonly #seen = new Map<string, bigint>();
  /** Whether the log is kept at its end. */
  #atEnd = true;
  #drawing = false;
  /** Rooms that the server has closed and a person has not answered to. */
  #lost = new Set(tabMemory.get(lostKey)?.split(" ").filter(Boolean));

  constructor(user: string) {
    this.#status = new StatusView(user);
    // Metadata is ASCII.
    this.#session = createSession({ user, token: () => `dev:${encodeURIComponent(user)}`, history: 50 });
    const room = () => this.#selected;
    this.#log = new LogView(byId("log"), byId("pending"), user, {
      loadGap: (gap) => this.#fetch(this.#session.loadGap(room(), gap)),
      waitsFor: (clientId) => this.#session.waitsFor(clientId),
      retry: (clientId) => this.#session.retrySend(room(), clientId),
      drop: (clientId) => this.#session.dropSend(room(), clientId),
    });
    for (const log of this.#session.rooms) this.#seen.set(log.name, log.place.offset);
    setAvatar(byId("me-avatar"), user);
    setText(byId("me"), user);
    this.#session.subscribe((change) => this.#changed(change));
    this.#unfollow = followPage(this.#session);
    this.#listen();
    byId("chat").hidden = false;
    this.#draw();
    this.#session.connect();
  }

  /** Ends the session and takes the page away. */
  end(): void {
    this.#stop.abort();
    this.#unfollow();
    this.#session.end();
    tabMemory.remove(selectedKey);
    tabMemory.remove(lostKey);
    byId("chat").hidden = true;
  }

  #listen(): void {
    const { signal } = this.#stop;
    const on = <K extends keyof HTMLElementEventMap>(id: string, type: K, fn: (event: HTMLElementEventMap[K]) => void) =>
      byId(id).addEventListener(type, fn, { signal });

    on("toggle", "click", () => this.#toggle());
    on("retry", "click", () => this.#session.online());
    on("start-over", "click", () => this.#startOver());
    on("join", "submit", (event) => this.#join(event));
    on("lobby", "click", () => this.#joinRoom("lobby"));
    on("leave", "click", () => void this.#fetch(this.#session.leave(this.#selected)));
    on("earlier", "click", () => void this.#fetch(this.#session.loadEarlier(this.#selected)));
    on("lost-dismiss", "click", () => this.#setLost(new Set()));
    on("newest", "click", () => this.#toEnd());
    on("scroll", "scroll", () => this.#scrolled());
    on("composer", "submit", (event) => this.#send(event));
    on("text", "keydown", (event) => this.#key(event));
    on("menu", "click", () => this.#openSide(byId("menu").ariaExpanded !== "true"));
    on("scroll", "click", () => this.#openSide(false));
    on("chat", "keydown", (event) => event.key === "Escape" && this.#openSide(false));
    document.addEventListener("visibilitychange", () => this.#draw(), { signal });
    const clock = setInterval(() => this.#status.draw(this.#session.state), 1000);
    signal.addEventListener("abort", () => clearInterval(clock));
  }

  // Session to page.

  #changed(change: Change): void {
    if (change.what === "notice") return this.#notice(change.text);
    if (change.what === "state") this.#status.draw(this.#session.state);
    if (change.what === "closed" && !change.left) this.#setLost(new Set([...this.#lost, change.room]));
    this.#drawSoon();
  }

  /** Many changes in one turn are drawn once. */
  #drawSoon(): void {
    if (this.#drawing) return;
    this.#drawing = true;
    setTimeout(() => this.#draw());
  }

  #draw(): void {
    this.#drawing = false;
    if (this.#stop.signal.aborted) return;
    const { rooms, state } = this.#session;
    this.#session.focus = this.#selected;
    if (this.#session.room(this.#awaited)) this.#awaited = "";
    if (!this.#session.room(this.#selected) && !this.#awaited && rooms[0] && state.name === "live") {
      this.#show(rooms[0].name);
      // Only if that takes the focus from nowhere.
      this.#toText = document.activeElement === document.body;
    }
    const log = this.#session.room(this.#selected);
    setText(byId("title"), log ? log.title || `# ${log.name}` : "Reprise");
    byId("leave").hidden = !log;
    byId("empty").hidden = log !== undefined || rooms.length > 0 || state.name !== "live";
    byId<HTMLTextAreaElement>("text").disabled = !log;
    byId<HTMLButtonElement>("send").disabled = !log;
    if (log && this.#toText) {
      this.#toText = false;
      byId("text").focus();
    }
    this.#status.draw(state);
    this.#drawLost();
    this.#drawUnavailable(log?.unavailable ?? "");
    this.#drawLog();
    this.#drawRooms();
  }

  /** Says why nothing comes in the room that is shown, if so. */
  #drawUnavailable(why: string): void {
    const note = byId("unavailable");
    note.hidden = why === "";
    note.title = why;
    setText(note, why && "The server cannot read this room just now. It tries again by itself; nothing that you write is lost.");
  }

  /** Rooms that are gone without anybody having left them: a server that was set up anew. */
  #drawLost(): void {
    const lost = [...this.#lost].filter((name) => !this.#session.room(name));
    if (lost.length < this.#lost.size) this.#setLost(new Set(lost)); // Joined again.
    const hidden = lost.length === 0;
    if (byId("lost").hidden !== hidden) byId("lost").hidden = hidden;
    const rooms = lost.length === 1 ? "this room" : "these rooms";
    setText(byId("lost-text"), hidden ? "" : `The server does not have you in ${rooms} any more. Its data may have been replaced.`);
    const shown = [...byId("lost-rooms").children].map((child) => (child as HTMLElement).dataset["lost"]);
    if (shown.join(" ") === lost.join(" ")) return;
    setChildren(byId("lost-rooms"), lost.map((name) => {
      const again = button(`Join ${name} again`, () => this.#joinRoom(name));
      again.dataset["lost"] = name;
      return again;
    }));
  }

  #setLost(lost: Set<string>): void {
    this.#lost = lost;
    tabMemory.set(lostKey, [...lost].join(" ")); // Names have no spaces.
    this.#drawSoon();
  }

  #drawLog(): void {
    const log = this.#session.room(this.#selected);
    const scroll = byId("scroll");
    scroll.hidden = !log;
    if (!log) return;
    const fromEnd = scroll.scrollHeight - scroll.scrollTop;
    const first = byId("log").firstElementChild;
    const list = byId("log");
    // Another room's lines are not news to be read out.
    list.ariaBusy = String(list.dataset["room"] !== log.name);
    list.dataset["room"] = log.name;
    this.#log.draw(log, this.#session.pending(log.name));
    list.ariaBusy = "false";
    byId("earlier").hidden = log.start === 0n || log.exhausted;
    if (this.#atEnd) this.#toEnd();
    // Lines that came in above do not move what is being read.
    else if (byId("log").firstElementChild !== first) scroll.scrollTop = scroll.scrollHeight - fromEnd;
    this.#sawAll();
  }

  #drawRooms(): void {
    const items = this.#session.rooms.map((log) => {
      if (!this.#seen.has(log.name)) this.#seen.set(log.name, log.place.offset);
      const seen = this.#seen.get(log.name)!;
      const fresh = log.entries.filter((e) => e.kind === "message" && e.offset > seen).length;
      const item = button("", () => this.#select(log.name));
      item.append(el("span", "name", log.name));
      if (fresh > 0) item.append(el("span", "count", String(fresh)), el("span", "hidden", "unread"));
      item.ariaCurrent = log.name === this.#selected ? "true" : "false";
      item.dataset["room"] = log.name;
      return el("li", "", item);
    });
    const focused = (document.activeElement as HTMLElement | null)?.dataset["room"];
    setChildren(byId("rooms"), items);
    if (focused) items.find((i) => (i.firstChild as HTMLElement).dataset["room"] === focused)?.querySelector("button")?.focus();
    const unread = items.filter((i) => i.querySelector(".count")).length;
    document.title = unread > 0 ? `(${unread}) Reprise` : "Reprise";
  }

  #sawAll(): void {
    const log = this.#session.room(this.#selected);
    const seen = log && (this.#seen.get(log.name) ?? 0n);
    const visible = document.visibilityState === "visible" && this.#atEnd;
    if (log && (visible || seen! > log.place.offset)) this.#seen.set(log.name, log.place.offset);
    byId("newest").hidden = !log || this.#atEnd || log.place.offset <= seen!;
  }

  // Person to session.

  #toggle(): void {
    const { name } = this.#session.state;
    if (name === "idle" || name === "closed") this.#session.connect();
    else this.#session.disconnect();
  }

  #startOver(): void {
    this.#session.end();
    this.#session.connect();
  }

  #join(event: SubmitEvent): void {
    event.preventDefault();
    const input = byId<HTMLInputElement>("room");
    const room = readName(input, "A room's name");
    if (!room) return;
    this.#joinRoom(room);
    input.value = "";
  }

  #joinRoom(room: string): void {
    void this.#fetch(this.#session.join(room).then(() => this.#select(room)));
  }

  /** The person turns to a room. */
  #select(room: string): void {
    if (room !== this.#selected) this.#show(room);
    this.#awaited = this.#session.room(room) ? "" : room;
    this.#toText = true;
    this.#openSide(false);
    this.#drawSoon();
  }

  /** Shows a room, and leaves the person's focus where it is. */
  #show(room: string): void {
    this.#selected = room;
    this.#session.focus = room;
    tabMemory.set(selectedKey, room);
    this.#atEnd = true;
  }

  #key(event: KeyboardEvent): void {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId<HTMLFormElement>("composer").requestSubmit();
  }

  #send(event: SubmitEvent): void {
    event.preventDefault();
    const input = byId<HTMLTextAreaElement>("text");
    const text = input.value;
    if (text.trim() === "" || !this.#selected) return;
    try {
      this.#session.send(this.#selected, text);
      input.value = "";
      this.#atEnd = true;
    } catch (error) {
      this.#notice(`Not sent: ${(error as Error).message}.`);
    }
  }

  #fetch(work: Promise<void>): Promise<void> {
    return work.catch((error: unknown) => {
      this.#notice(error instanceof Error ? error.message : String(error));
      this.#drawSoon();
    });
  }

  // The page itself.

  #scrolled(): void {
    const scroll = byId("scroll");
    this.#atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < followPx;
    if (this.#atEnd) this.#drawSoon();
  }

  #toEnd(): void {
    const scroll = byId("scroll");
    this.#atEnd = true;
    scroll.scrollTop = scroll.scrollHeight;
    this.#sawAll();
  }

  #openSide(open: boolean): void {
    byId("side").classList.toggle("open", open);
    byId("menu").ariaExpanded = String(open);
    if (open) byId("rooms").querySelector("button")?.focus();
  }

  #notice(text: string): void {
    const item = el("div", "notice", text);
    byId("notices").append(item);
    setTimeout(() => item.remove(), noticeMs);
  }
}
