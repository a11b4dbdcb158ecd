// What the modules of the playground have in common. For the type checker only; it is not served.

/** One model, as `GET /v1/models` says it. */
export interface Model {
  id: string;
  state: string;
  source: string;
  family: string;
  dimensions: number;
  parameters: number;
  /** Vectors may be compared if their fingerprints are equal. */
  fingerprint: string;
  dtype: string;
  device: string;
  logit_scale: number | null;
  logit_bias: number | null;
  /** The template of zero-shot labels: a text with `{}`. */
  template: string;
  image: ImageCard | null;
  text: TextCard | null;
}

export interface ImageCard {
  decode: string;
  patch_size: number;
  fit: "squash" | "crop" | "naflex";
  patch_grid: { rows: number; cols: number };
  /** Pixels that every picture is stretched to; null for NaFlex. */
  height: number | null;
  width: number | null;
  max_num_patches: number | null;
  resample: string;
  mean: number[];
  std: number[];
}

export interface TextCard {
  context: number;
  vocab: number;
  family: string;
  canonicalization: string;
}

/** Milliseconds of a request: the stages of `Server-Timing`, and `page`: from sending to the whole answer, as the page saw it. */
export type Timings = Record<string, number>;

/** Vectors of texts, in the order of the texts. Each is of length 1. */
export interface EmbeddedTexts {
  vectors: Float32Array[];
  fingerprint: string;
  timings: Timings;
}

/** Vectors of pictures, in the order of the pictures. Where one could not be used its vector is null and `errors` says why. */
export interface EmbeddedPictures {
  vectors: (Float32Array | null)[];
  errors: (string | null)[];
  fingerprint: string;
  /** Summed over the requests that it took. */
  timings: Timings;
}

export interface CallOptions {
  signal?: AbortSignal;
  /** While the client waits: for a key, after 429 or while a model loads. The default shows a notice. */
  quiet?: boolean;
  /** Whether to wait and send again after 429 and while a model loads; true if left out. */
  retry?: boolean;
}

export interface PicturesOptions extends CallOptions {
  onProgress?: (done: number, total: number) => void;
  /** Pictures of one request; 32 if left out. */
  batch?: number;
  /** What the vectors must be comparable with; another space is an error of code `fingerprint_mismatch` (412). */
  fingerprint?: string;
}

/** A map of a text over a picture, as `POST /v1/heatmaps` says it. */
export interface Heatmap {
  image: number;
  text: number;
  rows: number;
  columns: number;
  width: number;
  height: number;
  cosine: number[][];
  logit: number[][] | null;
  probability: number[][] | null;
  peak: { row: number; column: number; x: number; y: number };
  box?: { x: number; y: number; width: number; height: number; probability: number | null; patches: number } | null;
}

/** The tokens of one text, as `POST /v1/tokenize` says them. */
export interface Tokens {
  /** The text after canonicalisation: what is tokenised. */
  canonical: string;
  /** The tokens without padding; the last is the end token. */
  tokens: { id: number; token: string | null }[];
  /** The first tokens that did not fit into the context; `cut_total` counts all of them. */
  cut: { id: number; token: string | null }[];
  /** Whether the text was longer than the context. */
  truncated: boolean;
  cut_total: number;
  padding: number;
}

/** A request in three languages, as text to copy. */
export interface Snippets {
  curl: string;
  python: string;
  javascript: string;
}

export interface Notice {
  update(text: string): void;
  close(): void;
}

export type NoticeKind = 'info' | 'good' | 'busy' | 'error';

/** The templates that labels are put into, chosen once for all views. */
export interface Prompts {
  /** Texts with `{}`. Several are averaged. */
  readonly templates: string[];
  /** The texts of a label: one for each template. */
  texts(label: string): string[];
  /** Called when the choice changes; answers a function that ends this. */
  onChange(listener: () => void): () => void;
  /** A `<select>` (with its label) that changes the choice. */
  picker(): HTMLElement;
}

/** What the shell offers to every view. */
export interface App {
  client: import('./api.js').Client;
  /** The model that is chosen; null until the list is there. Views are mounted after that. */
  readonly model: Model;
  readonly models: Model[];
  /** Called when another model is chosen; answers a function that ends this. */
  onModel(listener: (model: Model) => void): () => void;
  /** Shows a message. Errors stay until they are closed, `busy` until its owner closes it, the others for some seconds. */
  notice(kind: NoticeKind, text: string): Notice;
  /** Says what went wrong, unless it was aborted. */
  failed(error: unknown): void;
  /** A button that opens the snippets with a copy button for each language. The function is asked when it is opened. */
  copyAs(snippets: () => Snippets): HTMLElement;
  prompt: Prompts;
  /** The vector of a label: the mean of its texts' vectors by the chosen templates, of length 1. Cached by model and text. */
  labelVectors(labels: string[], options?: CallOptions): Promise<Float32Array[]>;
  /** Vectors of texts as they are, without a template. Cached by model and text. */
  textVectors(texts: string[], options?: CallOptions): Promise<Float32Array[]>;
  /** Pictures that ship with the page, as files. */
  samples(): Promise<File[]>;
}

export interface View {
  /** The view becomes visible. */
  show?(): void;
  /** Another view becomes visible. */
  hide?(): void;
  /** The page is about to forget the view. */
  destroy?(): void;
}

export type Mount = (root: HTMLElement, app: App) => View;
