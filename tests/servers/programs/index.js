// Answers at once; /wait?NAME says that it has begun in NAME.begun and answers when NAME exists.
const fs = require('fs');
const server = require('http').createServer((request, response) => {
  const [path, name] = request.url.split('?');
  if (path !== '/wait') return response.end('hello\n');
  fs.writeFileSync(name + '.begun', '');
  const timer = setInterval(() => {
    if (!fs.existsSync(name)) return;
    clearInterval(timer);
    response.end('waited\n');
  }, 5);
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.argv[2]), '127.0.0.1');
