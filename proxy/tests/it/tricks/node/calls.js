// Node's own ways to connect. See ../../tricks.rs for the form of this file.

//= net | SSRF guard blocked
return reach(require('net').connect(port, host));

//= fetch | SSRF guard blocked
return (await fetch(`http://${host}:${port}/`)).text();

//= http.get | SSRF guard blocked
return whole(require('http').get(`http://${host}:${port}/`));

//= http.ClientRequest | SSRF guard blocked
const r = new (require('http').ClientRequest)({host, port});
r.end();
return whole(r);

//= https | SSRF guard blocked
return new Promise((ok, no) =>
  require('https')
    .get({host, port})
    .on('error', no)
    .on('socket', (s) => reach(s).then(ok, no)),
);

//= tls | SSRF guard blocked
return reach(require('tls').connect({host, port, rejectUnauthorized: false}));

//= http2 | SSRF guard blocked
const s = require('http2').connect(`http://${host}:${port}`);
return new Promise((ok, no) =>
  s.on('error', no).on('connect', () => {
    s.destroy();
    ok(1);
  }),
);

//= dgram | SSRF guard blocked
const s = require('dgram').createSocket('udp4');
return new Promise((ok, no) => {
  s.on('error', no);
  s.send('x', port, host, (e) => {
    s.close();
    e ? no(e) : ok('sent');
  });
});

//= dgram connected | SSRF guard blocked
const s = require('dgram').createSocket('udp4');
return new Promise((ok, no) => {
  s.on('error', no);
  s.connect(port, host, (e) =>
    e
      ? no(e)
      : s.send('x', (e) => {
          s.close();
          e ? no(e) : ok('sent');
        }),
  );
});

//= dgram with a lookup of its own | SSRF guard blocked
const s = require('dgram').createSocket({
  type: 'udp4',
  lookup: (name, o, done) => done(null, name === 'a.test' ? host : name, 4),
});
return new Promise((ok, no) => {
  s.on('error', no);
  s.send('x', port, 'a.test', (e) => {
    s.close();
    e ? no(e) : ok('sent');
  });
});

//= a second connect of one socket | SSRF guard blocked
const s = require('net').connect(80, cover);
await new Promise((ok, no) => s.on('connect', ok).on('error', no));
s.destroy();
s.connect(port, host);
return reach(s);

//= the runner's Module._load | SSRF guard blocked
return reach(module.constructor._load('net').connect(port, host));

//= createRequire | SSRF guard blocked
return reach(require('module').createRequire('/app/x.js')('net').connect(port, host));

//= import at run time | SSRF guard blocked
const {connect} = await import('net');
return reach(connect(port, host));

//= an agent's own connection | SSRF guard blocked
const {Agent, get} = require('http');
const agent = new Agent({keepAlive: true});
agent.createConnection = () => require('net').connect(port, host);
return whole(get({host: cover, agent}));

//= another dispatcher of fetch | SSRF guard blocked
await fetch(`http://${cover}/`);
const key = Symbol.for('undici.globalDispatcher.1');
const kept = globalThis[key];
globalThis[key] = new kept.constructor({
  connect: (o, done) => {
    const s = require('net').connect(port, host, () => done(null, s));
    s.on('error', (e) => done(e));
  },
});
try {
  return (await fetch(`http://${cover}/x`)).status;
} finally {
  globalThis[key] = kept;
}

//= a redirect | SSRF guard blocked
return (await fetch(`http://${cover}/302/${host}/${port}`)).status;

//= a redirected POST | SSRF guard blocked
return (await fetch(`http://${cover}/307/${host}/${port}`, {method: 'POST', body: 'x'})).status;
