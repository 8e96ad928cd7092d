// How many threads serve an environment.

import { readFileSync } from 'node:fs';

const QUOTA = '/sys/fs/cgroup/cpu.max';
const PER_CPU = 8;

export function readQuota() {
  try {
    return readFileSync(QUOTA, 'utf8');
  } catch {
    return '';
  }
}

// Never more than invocations allowed at a time. `quota` is what the kernel tells, `<microseconds or max> <period>`.
export function workerCount(env, quota, cores) {
  const most = Math.max(Number.parseInt(env.AWS_LAMBDA_MAX_CONCURRENCY, 10) || 1, 1);
  const wanted = Number.parseInt(env.AWS_LAMBDA_NODEJS_WORKER_COUNT, 10);
  return Math.min(wanted > 0 ? wanted : PER_CPU * virtualCpus(quota, cores), most);
}

function virtualCpus(quota, cores) {
  const [time, period] = quota.trim().split(' ');
  if (time === 'max') return cores;
  return Math.ceil(Number(time) / Number(period)) || 1;
}
