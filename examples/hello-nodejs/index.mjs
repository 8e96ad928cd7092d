// Greets, and says how often this environment has been used: 1 means a cold start.

let used = 0;

export const handler = async (event, context) => {
  used += 1;
  const name = event.name ?? 'world';
  console.log('greeting %s, invocation %d of this environment', name, used);
  return {
    message: `Hello ${name} from Node.js`,
    environment_used: used,
    ms_left: context.getRemainingTimeInMillis(),
  };
};
