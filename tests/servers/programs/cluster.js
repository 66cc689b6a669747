// Two workers of index.js; the primary accepts and hands each connection to one of them.
const cluster = require('cluster');
if (cluster.isPrimary) {
  for (let i = 0; i < 2; i++) cluster.fork();
} else {
  require('./index.js');
}
