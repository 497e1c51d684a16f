// An issuer of tokens on the library jose: serves its keys, and signs what it is asked for.
//
//   node issuer.mjs PORT
//
// GET /jwks       the public keys
// POST /rotate    new keys; the old ones are withdrawn
// POST /token     {alg, claims, expires, header} -> a token, signed with the key for alg
// POST /odd       tokens that nobody should accept, by their names

import {createServer} from "node:http";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
import process from "node:process";

const {resolve} = createRequire(`${process.env.JOSE}/`);
const jose = await import(pathToFileURL(resolve("jose")));
const ISSUER = "https://issuer.example";
const AUDIENCE = "couchgateway";
const ALGORITHMS = ["RS256", "ES256", "EdDSA"];
let generation = 0;
let keys = {};

async function rotate() {
  generation += 1;
  keys = {};
  for (const alg of [...ALGORITHMS, "PS256", "ES384"]) {
    const options = {extractable: true, ...(alg === "EdDSA" ? {crv: "Ed25519"} : {})};
    keys[alg] = {kid: `${alg}-${generation}`, ...await jose.generateKeyPair(alg, options)};
  }
}

async function published() {
  const rows = [];
  for (const [alg, {kid, publicKey}] of Object.entries(keys)) {
    rows.push({...await jose.exportJWK(publicKey), kid, alg, use: "sig"});
  }
  return {keys: rows};
}

const signed = ({alg, claims = {}, expires = "1h", header = {}}) => new jose.SignJWT({sub: "ann", ...claims})
  .setProtectedHeader({alg, kid: keys[alg].kid, ...header})
  .setIssuer(ISSUER).setAudience(AUDIENCE).setIssuedAt().setExpirationTime(expires).sign(keys[alg].privateKey);

async function odd() {
  const pem = new TextEncoder().encode(await jose.exportSPKI(keys.RS256.publicKey));
  const claims = {sub: "ann", iss: ISSUER, aud: AUDIENCE, exp: Math.floor(Date.now() / 1000) + 3600};
  const stranger = await jose.generateKeyPair("RS256");
  return {
    unsecured: new jose.UnsecuredJWT(claims).encode(),
    confused: await new jose.SignJWT(claims).setProtectedHeader({alg: "HS256", kid: keys.RS256.kid}).sign(pem),
    encrypted: await new jose.EncryptJWT(claims).setProtectedHeader({alg: "RSA-OAEP", enc: "A256GCM"})
      .encrypt((await jose.generateKeyPair("RSA-OAEP")).publicKey),
    stranger: await new jose.SignJWT(claims).setProtectedHeader({alg: "RS256", kid: keys.RS256.kid})
      .sign(stranger.privateKey),
    embedded: await new jose.SignJWT(claims)
      .setProtectedHeader({alg: "RS256", jwk: await jose.exportJWK(stranger.publicKey)}).sign(stranger.privateKey),
    expired: await signed({alg: "RS256", expires: Math.floor(Date.now() / 1000) - 1}),
    early: await signed({alg: "RS256", claims: {nbf: Math.floor(Date.now() / 1000) + 600}}),
    pss: await signed({alg: "PS256"}),
    p384: await signed({alg: "ES384"}),
    critical: await signed({alg: "RS256", header: {crit: ["b64"], b64: true}}),
  };
}

async function answer(request, body) {
  switch (`${request.method} ${request.url}`) {
    case "GET /jwks": return published();
    case "POST /rotate": await rotate(); return {};
    case "POST /token": return {token: await signed(JSON.parse(body))};
    case "POST /odd": return odd();
  }
}

await rotate();
createServer((request, response) => {
  let body = "";
  request.on("data", data => { body += data; });
  request.on("end", () => answer(request, body).then(
    found => response.writeHead(found ? 200 : 404, {"Content-Type": "application/json"}).end(JSON.stringify(found ?? {})),
    error => response.writeHead(500).end(String(error.stack)),
  ));
}).listen(Number(process.argv[2]), "127.0.0.1");
