// From a handler name to the handler function: `file.export`, `folder/file.export`, `file.object.method`.

import { existsSync, readFileSync, realpathSync } from 'node:fs';
import module, { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { HandlerNotFound, ImportModuleError, MalformedHandlerName, UserCodeSyntaxError } from './errors.mjs';

const require = createRequire(import.meta.url);
const [major, minor] = process.versions.node.split('.').map(Number);

export async function loadHandler(root, name) {
  if (name.includes('..')) {
    throw new MalformedHandlerName(
      `'${name}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`,
    );
  }
  const base = path.basename(name);
  const parts = base.match(/^([^.]*)\.(.*)$/);
  if (!parts) throw new MalformedHandlerName('Bad handler');
  const folder = name.slice(0, name.indexOf(base));
  const loaded = await loadModule(root, folder, parts[1]);
  const handler = parts[2].split('.').reduce((value, key) => value && value[key], loaded);
  if (!handler) throw new HandlerNotFound(`${name} is undefined or not exported`);
  if (typeof handler !== 'function') throw new HandlerNotFound(`${name} is not a function`);
  return handler;
}

async function loadModule(root, folder, name) {
  try {
    const file = path.resolve(root, folder, name);
    const found = candidates(file).find(([candidate]) => existsSync(candidate));
    if (!found) return require(require.resolve(name, { paths: [root, folder] }));
    const [candidate, asModule] = found;
    if (!asModule) return require(candidate);
    searchNodePath(root);
    return await import(pathToFileURL(candidate));
  } catch (error) {
    if (error instanceof SyntaxError) throw new UserCodeSyntaxError(error);
    if (error?.code === 'MODULE_NOT_FOUND') throw new ImportModuleError(error);
    throw error;
  }
}

// The files that may be meant, in order, and whether each is an ES module.
function candidates(file) {
  const esm = packageIsModule(path.dirname(file));
  const found = [
    [file, false],
    [file + '.js', esm],
    [file + '.mjs', true],
    [file + '.cjs', false],
  ];
  if (major >= 24) found.push([file + '.ts', esm], [file + '.mts', true], [file + '.cts', false]);
  return found;
}

// Whether the nearest package.json says that .js files are ES modules; a node_modules folder ends the search.
function packageIsModule(folder) {
  if (folder.endsWith('/node_modules')) return false;
  const file = path.join(folder, 'package.json');
  if (existsSync(file)) {
    try {
      return JSON.parse(readFileSync(file)).type === 'module';
    } catch (error) {
      console.warn(`${file} cannot be read, it will be ignored for ES module detection purposes.`, error);
      return false;
    }
  }
  return folder === '/' ? false : packageIsModule(path.dirname(folder));
}

// `import` knows no NODE_PATH; a resolve hook adds it. The in-thread kind is far cheaper where node has it, and none is
// cheapest: folders that stand (by a link) where `import` looks anyway need no hook.
function searchNodePath(root) {
  const reached = [];
  for (let folder = path.resolve(root); folder !== '/'; ) {
    folder = path.dirname(folder);
    reached.push(realFolder(path.join(folder, 'node_modules')));
  }
  const wanted = (process.env.NODE_PATH ?? '').split(':').filter((folder) => folder.endsWith('/node_modules'));
  if (wanted.map(realFolder).every((folder) => folder === null || reached.includes(folder))) return;
  if (module.registerHooks) module.registerHooks(require('./resolve.cjs'));
  else if (major > 20 || (major === 20 && minor >= 6) || (major === 18 && minor >= 19)) {
    module.register('./resolve-thread.mjs', import.meta.url);
  }
}

function realFolder(folder) {
  try {
    return realpathSync(folder);
  } catch {
    return null;
  }
}
