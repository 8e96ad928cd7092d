// Greets, and says how often this environment has been used.
let greeted = 0;

export const handler = async (event, context) => {
  greeted += 1;
  console.log(`greeting number ${greeted} of this environment`);
  return {
    message: `Hello ${event.name ?? "world"} from Node.js`,
    environment_used: greeted,
    ms_left: context.getRemainingTimeInMillis(),
  };
};
