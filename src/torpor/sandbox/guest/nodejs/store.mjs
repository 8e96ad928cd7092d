// What belongs to one invocation of several, wherever its asynchronous code runs. Libraries find the same store by the
// interface of the package @aws/lambda-invoke-store.

import { AsyncLocalStorage } from 'node:async_hooks';

const KEYS = {
  REQUEST_ID: Symbol.for('_AWS_LAMBDA_REQUEST_ID'),
  X_RAY_TRACE_ID: Symbol.for('_AWS_LAMBDA_X_RAY_TRACE_ID'),
  TENANT_ID: Symbol.for('_AWS_LAMBDA_TENANT_ID'),
};

export class InvokeStore {
  static PROTECTED_KEYS = KEYS;
  #storage = new AsyncLocalStorage();

  static context(requestId, traceId, tenantId) {
    return { [KEYS.REQUEST_ID]: requestId, [KEYS.X_RAY_TRACE_ID]: traceId, [KEYS.TENANT_ID]: tenantId || undefined };
  }

  run(context, action) {
    return this.#storage.run(context, action);
  }

  getContext() {
    return this.#storage.getStore();
  }

  hasContext() {
    return this.getContext() !== undefined;
  }

  get(key) {
    return this.getContext()?.[key];
  }

  set(key, value) {
    if (this.isProtectedKey(key)) throw new Error(`${String(key)} is the platform's and cannot be changed`);
    if (!this.hasContext()) throw new Error('No invocation runs here');
    this.getContext()[key] = value;
  }

  isProtectedKey(key) {
    return Object.values(KEYS).includes(key);
  }

  getRequestId() {
    return this.get(KEYS.REQUEST_ID) ?? '-';
  }

  getXRayTraceId() {
    return this.get(KEYS.X_RAY_TRACE_ID);
  }

  getTenantId() {
    return this.get(KEYS.TENANT_ID);
  }
}
