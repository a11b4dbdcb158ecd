// Reads the service's OpenAPI document: references, fields, types in words, examples.

/**
 * @typedef {Record<string, any>} Schema
 *
 * @typedef {object} Operation
 * @property {string} method in capitals
 * @property {string} path
 * @property {string} id
 * @property {string} tag
 * @property {string} summary
 * @property {string} description
 * @property {{ name: string, in: string, required?: boolean, description?: string, schema?: Schema }[]} parameters
 * @property {Record<string, { schema?: Schema, example?: unknown }>} bodies by media type
 * @property {Record<string, { description: string, content?: Record<string, { schema?: Schema, example?: unknown }> }>} responses
 */

/** A field of an object. @typedef {{ name: string, type: string, required: boolean, text: string, fields: Field[] }} Field */

/** Levels of objects in objects that are shown. */
const DEPTH = 4;

export class Contract {
  /** @param {Schema} document */
  constructor(document) {
    this.document = document;
  }

  /** Sections in their order, with their operations. @returns {{ name: string, about: string, operations: Operation[] }[]} */
  get sections() {
    const sections = (this.document.tags ?? []).map((/** @type {Schema} */ tag) => ({ name: tag.name, about: tag.description ?? '', operations: /** @type {Operation[]} */ ([]) }));
    for (const [path, item] of Object.entries(this.document.paths)) {
      for (const [method, operation] of Object.entries(item)) {
        const of = sections.find((/** @type {{ name: string }} */ section) => section.name === operation.tags?.[0]) ?? sections[0];
        of.operations.push({
          method: method.toUpperCase(), path, id: operation.operationId ?? `${method}${path}`, tag: of.name, summary: operation.summary ?? '',
          description: operation.description ?? '', parameters: operation.parameters ?? [],
          bodies: operation.requestBody?.content ?? {}, responses: operation.responses ?? {},
        });
      }
    }
    return sections.filter((/** @type {{ operations: unknown[] }} */ section) => section.operations.length > 0);
  }

  /**
   * What a reference stands for, with the descriptions around it.
   * @param {Schema | undefined} schema
   * @returns {Schema}
   */
  resolve(schema) {
    let found = schema ?? {};
    let description;
    for (let steps = 0; steps < 20; steps += 1) {
      description ??= found.description;
      const alternatives = (found.oneOf ?? found.anyOf)?.filter((/** @type {Schema} */ one) => one.type !== 'null');
      if (found.$ref) {
        found = found.$ref.replace('#/', '').split('/').reduce((/** @type {any} */ node, /** @type {string} */ key) => node?.[key], this.document) ?? {};
      } else if (alternatives?.length === 1) {
        [found] = alternatives;
      } else if (found.allOf?.length === 1) {
        [found] = found.allOf;
      } else {
        break;
      }
    }
    return description === undefined ? found : { ...found, description };
  }

  /**
   * A type in a few words: `string`, `list of numbers`, `"a" | "b"`.
   * @param {Schema | undefined} schema
   * @param {number} [depth]
   * @returns {string}
   */
  type(schema, depth = 0) {
    const found = this.resolve(schema);
    if (depth > 5) return '…';
    if (found.enum) return found.enum.filter((/** @type {unknown} */ value) => value !== null).map((/** @type {unknown} */ value) => JSON.stringify(value)).join(' | ');
    const alternatives = found.oneOf ?? found.anyOf;
    if (alternatives) {
      const words = alternatives.filter((/** @type {Schema} */ one) => one.type !== 'null').map((/** @type {Schema} */ one) => this.type(one, depth + 1));
      return [...new Set(words)].join(' or ');
    }
    const types = [found.type].flat().filter((type) => type && type !== 'null');
    if (types.includes('array')) return `list of ${this.type(found.items, depth + 1)}`;
    if (found.format === 'binary') return 'file';
    if (types.length === 0) return found.properties ? 'object' : 'anything';
    return types.join(' or ');
  }

  /**
   * The fields of an object, of the objects in a list, or of the first kind of object that may be there.
   * @param {Schema | undefined} schema
   * @param {number} [depth]
   * @returns {Field[]}
   */
  fields(schema, depth = 0) {
    const found = this.resolve(schema);
    if (depth >= DEPTH) return [];
    if (found.items) return this.fields(found.items, depth);
    if (!found.properties) {
      const inner = (found.oneOf ?? found.anyOf ?? []).map((/** @type {Schema} */ one) => this.fields(one, depth));
      return inner.find((/** @type {Field[]} */ fields) => fields.length > 0) ?? [];
    }
    const required = new Set(found.required ?? []);
    return Object.entries(found.properties).map(([name, field]) => {
      const of = this.resolve(field);
      return { name, type: this.type(field), required: required.has(name), text: of.description ?? '', fields: this.fields(field, depth + 1) };
    });
  }

  /**
   * An example of a body: the document's own, or the least that fits.
   * @param {{ schema?: Schema, example?: unknown } | undefined} media
   */
  example(media) {
    if (media?.example !== undefined) return media.example;
    const found = this.resolve(media?.schema);
    if (found.example !== undefined) return found.example;
    const names = found.required ?? [];
    return Object.fromEntries(names.map((/** @type {string} */ name) => [name, this.#least(found.properties?.[name])]));
  }

  /**
   * @param {Schema | undefined} schema
   * @returns {unknown}
   */
  #least(schema) {
    const found = this.resolve(schema);
    if (found.example !== undefined) return found.example;
    if (found.enum) return found.enum[0];
    const type = [found.type].flat().find((one) => one !== 'null');
    if (type === 'array') return [];
    if (type === 'number' || type === 'integer') return found.minimum ?? 0;
    if (type === 'boolean') return false;
    return type === 'object' || found.properties ? {} : '';
  }
}
