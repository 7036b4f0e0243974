// What has no host that could tell.

//= multicast | SSRF guard blocked
const s = require('dgram').createSocket('udp4');
return new Promise((ok, no) => {
  s.on('error', no);
  s.bind(0, () => {
    s.setMulticastTTL(4);
    s.send('x', 5353, '224.0.0.251', (e) => (e ? no(e) : ok('sent')));
  });
});

//= broadcast | SSRF guard blocked
const s = require('dgram').createSocket('udp4');
return new Promise((ok, no) => {
  s.on('error', no);
  s.bind(0, () => {
    s.setBroadcast(true);
    s.send('x', 5353, '255.255.255.255', (e) => (e ? no(e) : ok('sent')));
  });
});

//= an addon in /tmp | Operation not permitted / failed to map segment
const fs = require('fs');
const from = fs.readFileSync('/proc/self/maps', 'utf8').match(/\/\S*(?:libc|musl)\S*\.so\S*/)[0];
fs.writeFileSync('/tmp/addon.node', fs.readFileSync(from), {mode: 0o755});
process.dlopen({exports: {}}, '/tmp/addon.node');

//= a program in /tmp | EACCES
const fs = require('fs');
fs.copyFileSync(fs.realpathSync('/bin/sh'), '/tmp/program');
fs.chmodSync('/tmp/program', 0o755);
require('child_process').execFileSync('/tmp/program');

//= WebAssembly has no imports of its own | LinkError / Import / import
return new WebAssembly.Instance(
  new WebAssembly.Module(
    Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 2, 7, 1, 1, 97, 1, 98, 0, 0]),
  ),
);

//= sockets of WASI | is not a function / undefined / not a constructor
const {WASI} = require('wasi');
return new WASI({}).wasiImport.sock_open();
