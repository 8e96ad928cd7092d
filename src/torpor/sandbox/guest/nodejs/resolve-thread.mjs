// The same search for the older kind of hooks, which run in a thread of their own and wait for promises.

import { createRequire } from 'node:module';

const { places } = createRequire(import.meta.url)('./resolve.cjs');

export async function resolve(specifier, context, next) {
  try {
    return await next(specifier, context);
  } catch (error) {
    for (const place of places(specifier, context, error)) {
      try {
        return await next(specifier, place);
      } catch (failed) {
        if (failed.code !== 'ERR_MODULE_NOT_FOUND') throw failed;
      }
    }
    throw error;
  }
}
