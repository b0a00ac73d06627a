export default { output: process.env.STANDALONE ? 'standalone' : undefined };
