'use strict';
// Looks for a bare import in the folders of NODE_PATH when the usual places do not have it.

const { pathToFileURL } = require('node:url');

const parents = (process.env.NODE_PATH ?? '')
  .split(':')
  .filter((folder) => folder.endsWith('/node_modules'))
  .map((folder) => pathToFileURL(folder.slice(0, -'node_modules'.length) + 'index.mjs').href);

const isBare = (specifier) => !/^(\.{0,2}\/|[a-z][a-z0-9+.-]*:)/i.test(specifier);

function* places(specifier, context, error) {
  if (error.code !== 'ERR_MODULE_NOT_FOUND' || !isBare(specifier)) throw error;
  for (const parentURL of parents) yield { ...context, parentURL };
}

exports.places = places;

exports.resolve = function (specifier, context, next) {
  try {
    return next(specifier, context);
  } catch (error) {
    for (const place of places(specifier, context, error)) {
      try {
        return next(specifier, place);
      } catch (failed) {
        if (failed.code !== 'ERR_MODULE_NOT_FOUND') throw failed;
      }
    }
    throw error;
  }
};
