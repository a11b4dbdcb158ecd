// Files out of what somebody dropped or chose: folders are walked, what is no picture is left out.

/** Files that are taken at once. */
export const MOST = 20_000;
/** Folders inside of folders that are walked. */
const DEPTH = 16;

const ENDINGS = /\.(jpe?g|jfif|png|webp|gif|bmp|dib|tiff?)$/i;

/**
 * A file and its path inside of what was dropped.
 * @typedef {{ file: File, name: string }} Named
 */

/**
 * Whether a file may be a picture that the service reads: by its ending, or by its type where it has no ending.
 * @param {File} file
 */
export function isPicture(file) {
  if (file.name.startsWith('.')) return false; // what macOS and others leave beside pictures
  return ENDINGS.test(file.name) || (!file.name.includes('.') && file.type.startsWith('image/'));
}

/**
 * The files of a drop, folders included. It must be called while the event is handled: afterwards its items are gone.
 * @param {DataTransfer} transfer
 * @returns {Promise<Named[]>}
 */
export function droppedFiles(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === 'file').map((item) => item.webkitGetAsEntry());
  const plain = chosenFiles(transfer.files);
  return entries.length > 0 && entries.every((entry) => entry !== null)
    ? walk(/** @type {FileSystemEntry[]} */ (entries))
    : Promise.resolve(plain);
}

/**
 * Lets files be dropped anywhere on a page; it has the class `over` meanwhile.
 * @param {HTMLElement} root
 * @param {(files: Named[]) => void} onFiles
 * @param {(error: unknown) => void} onError
 */
export function takesDrops(root, onFiles, onError) {
  root.addEventListener('dragover', (event) => {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    root.classList.add('over');
  });
  root.addEventListener('dragleave', (event) => {
    if (!(event.relatedTarget instanceof Node && root.contains(event.relatedTarget))) root.classList.remove('over');
  });
  root.addEventListener('drop', (event) => {
    root.classList.remove('over');
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    droppedFiles(event.dataTransfer).then(onFiles, onError);
  });
}

/**
 * The files of an `<input type="file">`, with or without `webkitdirectory`.
 * @param {Iterable<File>} files
 * @returns {Named[]}
 */
export function chosenFiles(files) {
  return [...files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
}

/**
 * Every file below some entries, at most one more than `MOST` pictures.
 * @param {FileSystemEntry[]} entries
 * @returns {Promise<Named[]>}
 */
async function walk(entries) {
  /** @type {Named[]} */
  const found = [];
  let pictures = 0;
  const visit = async (/** @type {FileSystemEntry} */ entry, /** @type {number} */ depth) => {
    if (pictures > MOST) return;
    if (entry.isFile) {
      const file = await fileOf(/** @type {FileSystemFileEntry} */ (entry)).catch(() => null);
      if (!file) return; // gone, or not readable for this user
      found.push({ file, name: entry.fullPath.replace(/^\//, '') });
      if (isPicture(file)) pictures += 1;
    } else if (depth < DEPTH) {
      for (const inner of await contentOf(/** @type {FileSystemDirectoryEntry} */ (entry))) await visit(inner, depth + 1);
    }
  };
  for (const entry of entries) await visit(entry, 0);
  return found;
}

/** @param {FileSystemFileEntry} entry @returns {Promise<File>} */
const fileOf = (entry) => new Promise((resolve, reject) => entry.file(resolve, reject));

/**
 * A folder's entries; browsers give a hundred at a time.
 * @param {FileSystemDirectoryEntry} folder
 */
async function contentOf(folder) {
  const reader = folder.createReader();
  /** @type {FileSystemEntry[]} */
  const all = [];
  for (;;) {
    const some = await new Promise((/** @type {(entries: FileSystemEntry[]) => void} */ resolve) => reader.readEntries(resolve, () => resolve([])));
    if (some.length === 0) return all;
    all.push(...some);
  }
}

/**
 * Pictures out of files, by name in the order that people count in, and how many were left out.
 * @param {Named[]} files
 * @returns {{ pictures: Named[], others: number, tooMany: number }}
 */
export function sortPictures(files) {
  const { compare } = new Intl.Collator(undefined, { numeric: true });
  const all = files.filter(({ file }) => isPicture(file)).sort((a, b) => compare(a.name, b.name));
  return { pictures: all.slice(0, MOST), others: files.length - all.length, tooMany: Math.max(0, all.length - MOST) };
}
