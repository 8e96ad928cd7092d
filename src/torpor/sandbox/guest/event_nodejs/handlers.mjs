// From a handler's name, `module.export` or `folder/module.export`, to the function.

import { existsSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { LoadFailure } from './failures.mjs';

const root = process.env.FC_FUNC_CODE_PATH || '/code';
const major = Number(process.versions.node.split('.')[0]);
const ENDINGS = major >= 18 ? ['.js', '.mjs', '.cjs'] : ['.js', '.cjs'];

const found = new Map();

// The function of that name, loaded once; a failure to load it stays.
export function find(name) {
  if (!found.has(name)) found.set(name, load(name));
  return found.get(name);
}

async function load(name) {
  const dot = name.lastIndexOf('.');
  if (dot < 0) throw new LoadFailure('MalformedHandlerName', `Bad handler '${name}': it must be module.function`);
  const [file, key] = [name.slice(0, dot), name.slice(dot + 1)];
  const module = await importModule(file);
  const handler = module[key] || (module.default && module.default[key]);
  if (typeof handler !== 'function') {
    throw new LoadFailure('HandlerNotFound', `Handler '${key}' is missing on module '${file}'`);
  }
  return handler;
}

async function importModule(file) {
  try {
    const base = path.resolve(root, file);
    const ending = ENDINGS.find((each) => existsSync(base + each));
    if (!ending) throw Object.assign(new Error(`There is no file ${base}.js`), { code: 'MODULE_NOT_FOUND' });
    return await import(pathToFileURL(base + ending).href);
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new LoadFailure('UserCodeSyntaxError', `Syntax error in module '${file}'`, error);
    }
    if (error && ['MODULE_NOT_FOUND', 'ERR_MODULE_NOT_FOUND'].includes(error.code)) {
      throw new LoadFailure('ImportModuleError', `Unable to import module '${file}'`, error);
    }
    throw error;
  }
}
