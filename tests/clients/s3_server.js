// An S3 server of its own, with one bucket in a folder and one account that may use it. Told by its arguments: the folder,
// the port, 0 for a free one, and the address, this machine alone if there is none. Says on its first line where it listens, and ends with its standard input.

import { createServer } from "node:http";

import aws4 from "aws4";
import S3rver from "s3rver";

const [directory, port, address = "127.0.0.1"] = process.argv.slice(2);
const account = { accessKeyId: "S3RVER", secretAccessKey: "S3RVER" };
const s3 = new S3rver({ directory, silent: true, configureBuckets: [{ name: "pictures", configs: [] }] });

// S3rver knows its accounts and takes their word for signatures of version 4, so these are checked here.
const isSigned = ({ method, url, headers }) => {
  const signed = /SignedHeaders=([^,]+)/.exec(headers.authorization)?.[1].split(";") ?? [];
  const request = {
    method,
    path: url,
    service: "s3",
    region: "us-east-1",
    headers: Object.fromEntries(signed.map((name) => [name, headers[name]])),
    extraHeadersToInclude: { range: true },
  };
  const signatureOf = (text) => /Signature=([0-9a-f]{64})/.exec(text)?.[1];
  const expected = signatureOf(aws4.sign(request, account).headers.Authorization);
  return signatureOf(headers.authorization) === expected;
};

await s3.configureBuckets();
const serve = s3.callback();
const server = createServer((request, response) => {
  if (isSigned(request)) {
    serve(request, response);
  } else {
    response.writeHead(403, { "Content-Type": "application/xml" });
    response.end("<Error><Code>SignatureDoesNotMatch</Code></Error>");
  }
});
server.listen(Number(port), address, () => console.log(`http://${address}:${server.address().port}`));
process.stdin.resume();
process.stdin.on("end", () => process.exit());
