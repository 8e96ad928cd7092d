// The argument that says who is called, by which request, with which rights.

import { logger } from './log.mjs';

const { env } = process;

export function buildContext(headers) {
  const told = (header, variable) => headers[header] || env[variable] || '';
  return {
    requestId: headers['x-fc-request-id'] || '',
    credentials: {
      accessKeyId: told('x-fc-access-key-id', 'ALIBABA_CLOUD_ACCESS_KEY_ID'),
      accessKeySecret: told('x-fc-access-key-secret', 'ALIBABA_CLOUD_ACCESS_KEY_SECRET'),
      securityToken: told('x-fc-security-token', 'ALIBABA_CLOUD_SECURITY_TOKEN'),
    },
    function: {
      name: told('x-fc-function-name', 'FC_FUNCTION_NAME'),
      handler: told('x-fc-function-handler', 'FC_FUNCTION_HANDLER'),
      memory: Number(told('x-fc-function-memory', 'FC_FUNCTION_MEMORY_SIZE')),
      timeout: Number(told('x-fc-function-timeout', 'FC_TIMEOUT')),
    },
    service: {
      logProject: headers['x-fc-service-logproject'] || '',
      logStore: headers['x-fc-service-logstore'] || '',
      qualifier: headers['x-fc-qualifier'] || '',
      versionId: told('x-fc-version-id', 'FC_FUNCTION_VERSION'),
    },
    region: told('x-fc-region', 'FC_REGION'),
    accountId: told('x-fc-account-id', 'FC_ACCOUNT_ID'),
    logger,
  };
}
