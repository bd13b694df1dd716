// A request as a command for a POSIX shell. The key stays out of it: commands end up in histories and chats.

export function curl(body, hasKey) {
  const address = new URL("predict", document.baseURI).href;
  const lines = [`curl -s ${quoted(address)}`, `-H ${quoted("Content-Type: application/json")}`];
  if (hasKey) lines.push('-H "X-API-Key: $KEY"');
  lines.push(`-d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ");
}

// Between single quotes all is literal but the quote itself, which must stand outside.
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
