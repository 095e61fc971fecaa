import type { State } from "../sdk";
import { byId, setText } from "./dom";

/** Failures in a row after which a person is told what they are. */
const tellAfter = 2;

/** Draws the connection's state, and the buttons that change it. */
export class StatusView {
  readonly #label = byId("state");
  readonly #toggle = byId<HTMLButtonElement>("toggle");
  readonly #retry = byId("retry");
  readonly #why = byId("why");
  readonly #banner = byId("banner");
  readonly #bannerText = byId("banner-text");

  constructor(readonly user: string) {}

  draw(state: State): void {
    this.#label.dataset["state"] = state.name;
    setText(this.#label, labelOf(state));
    this.#label.title = state.name === "waiting" ? state.error : "";
    const stopped = state.name === "idle" || state.name === "closed";
    setText(this.#toggle, stopped ? "Connect" : "Disconnect");
    this.#retry.hidden = state.name !== "waiting";
    // While the next attempt is made, what the last one met is still true.
    if (state.name !== "connecting") {
      const why = state.name === "waiting" && state.failures >= tellAfter ? whyOf(state) : "";
      this.#why.hidden = why === "";
      setText(this.#why, why);
    }
    this.#banner.hidden = state.name !== "closed";
    setText(this.#bannerText, state.name === "closed" ? bannerOf(state, this.user) : "");
  }
}

function whyOf({ error, reason }: State & { name: "waiting" }): string {
  if (reason) return `The server says: ${error}. This page goes on trying.`;
  return `The server cannot be reached (${error}). This page goes on trying; nothing that you write is lost.`;
}

function labelOf(state: State): string {
  switch (state.name) {
    case "idle":
      return "Disconnected";
    case "connecting":
      return "Connecting…";
    case "replaying":
      return state.toReplay > 0 ? `Catching up, ${state.toReplay} to replay…` : "Catching up…";
    case "live":
      return state.replayed > 0 ? `Live, ${state.replayed} replayed` : "Live";
    case "waiting": {
      const seconds = Math.max(0, Math.ceil((state.retryAt - Date.now()) / 1000));
      return seconds > 0 ? `Reconnecting in ${seconds} s` : "Reconnecting…";
    }
    case "closed":
      return "Stopped";
  }
}

function bannerOf(state: State & { name: "closed" }, user: string): string {
  switch (state.reason) {
    case "FENCED":
      return `${state.message} Connect continues here in a copy.`;
    case "RESUME_KEY_NOT_YOURS":
      return "This session belongs to somebody else. Start over to begin a new one.";
    case "TOO_MANY_SESSIONS":
      return "You have too many tabs and programs open here. Close some of them, then press Connect.";
    case "TOKEN_INVALID":
    case "TOKEN_MISSING":
      return `The server does not take “${user}” for a name (${state.message}). Sign out and choose another one.`;
    default:
      return `The server refused: ${state.message}`;
  }
}
