// An S3 server of its own, with one bucket in a folder and one account that may use it. Told by its arguments: the folder,
// the port, 0 for a free one. Says on its first line where it listens, and ends with its standard input.

import S3rver from "s3rver";

const [directory, port] = process.argv.slice(2);
const server = new S3rver({
  address: "127.0.0.1",
  port: Number(port),
  directory,
  silent: true,
  allowMismatchedSignatures: false,
  configureBuckets: [{ name: "pictures", configs: [] }],
});
const address = await server.run();
console.log(`http://127.0.0.1:${address.port}`);
process.stdin.resume();
process.stdin.on("end", () => process.exit());
