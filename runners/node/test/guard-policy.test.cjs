// The policy by itself: the shared addresses, every form of an address, and lists that make no sense.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const test = require('node:test');
const { parsePolicy } = require('../guard-policy.cjs');

const EGRESS = path.join(__dirname, '..', '..', 'egress');
const LIST = fs.readFileSync(path.join(EGRESS, 'ranges.txt'), 'utf8');
const judge = parsePolicy(LIST);

test('the shared addresses are judged as they say', () => {
  const cases = JSON.parse(fs.readFileSync(path.join(EGRESS, 'cases.json'), 'utf8'));
  assert.ok(cases.length >= 140);
  for (const { address, allowed } of cases) assert.equal(judge(address).allowed, allowed, address);
});

test('a carried IPv4 address is the one that is named', () => {
  const forms = ['::ffff:10.1.2.3', '::FFFF:a01:203', '0:0:0:0:0:ffff:10.1.2.3', '::10.1.2.3', '::ffff:0:10.1.2.3',
    '64:ff9b::10.1.2.3', '64:ff9b:1::a01:203', '64:ff9b:1:2:3:4:a01:203', '2002:a01:203::', '2002:0a01:0203::1'];
  for (const form of forms) assert.deepEqual(judge(form), { allowed: false, address: '10.1.2.3' }, form);
  for (const form of ['::ffff:8.8.8.8', '::ffff:808:808']) {
    assert.deepEqual(judge(form), { allowed: false, address: '::ffff:8.8.8.8' }, form);
  }
  assert.deepEqual(judge('64:ff9b::8.8.8.8'), { allowed: false, address: '64:ff9b::808:808' });
});

test('an IPv6 address is named in its short form', () => {
  const shown = {
    '0:0:0:0:0:0:0:1': '::1', '0:0:0:0:0:0:0:0': '::', 'FE80::1%eth0': 'fe80::1', 'fd00:0ec2:0::254': 'fd00:ec2::254',
    '2001:db8:0:0:1:0:0:1': '2001:db8::1:0:0:1', '2001:db8:0:1:1:1:1:1': '2001:db8:0:1:1:1:1:1', 'ff02:0:0:0:1:0:0:0': 'ff02::1:0:0:0',
    '2001:4860:4860:0:0:0:0:8888': '2001:4860:4860::8888', 'fc00:1:2:3:4:5:0:0': 'fc00:1:2:3:4:5::',
  };
  for (const [text, short] of Object.entries(shown)) assert.equal(judge(text).address, short, text);
});

test('what is no address gets no verdict', () => {
  const texts = ['', ' ', 'localhost', '1', '127.1', '127.0.0.1.', '.127.0.0.1', '127..0.1', '0127.0.0.1', '127.0.0.01', '127.0.0.256',
    '1.2.3.4.5', '0x7f.0.0.1', '8.8.8.8\0', '8.8.8.8 ', ' 8.8.8.8', '8.8.8.8/8', '8.8.8.8%eth0', '１２７.0.0.1', '-1.0.0.1', ':', ':::',
    '::1::', '1::2::3', ':1', '1:', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9', '1:2:3:4:5:6:7:', '::1:2:3:4:5:6:7:8', '12345::', 'g::', '::1.2.3',
    '::1.2.3.4:5', '1:2:3:4:5:6:7:1.2.3.4', '[::1]', '::1]', '2606:4700::\0', '::ffff:8.8.8.8.', '%eth0', '1.2.3.4::'];
  for (const text of texts) {
    assert.equal(judge(text), null, JSON.stringify(text));
    assert.equal(net.isIP(text), 0, `Node takes ${JSON.stringify(text)} for an address`);
  }
});

test('what Node takes for an address gets a verdict', () => {
  const parts = ['', '0', '1', 'ffff', 'a01', '10.1.2.3', '64'];
  let seen = 0;
  for (let n = 0; n < 100000; n += 1) {
    // Every text of up to six parts in turn, as far as the count goes.
    const chosen = [];
    for (let rest = n; rest > 0; rest = Math.floor(rest / parts.length)) chosen.push(parts[rest % parts.length]);
    for (const text of [chosen.join(':'), `${chosen.join(':')}::1`, `::${chosen.join(':')}`]) {
      assert.equal(judge(text) !== null, net.isIP(text) !== 0, text);
      seen += net.isIP(text) ? 1 : 0;
    }
  }
  assert.ok(seen > 1000);
});

test('a list that makes no sense is refused', () => {
  const lines = ['deny', 'deny 10.0.0.0', 'deny 10.0.0.0/33', 'deny 10.0.0.0/', 'deny 10.0.0.0/x', 'deny 10.0.0/8', 'deny ::1/129',
    'deny ::g/8', 'allow 10.0.0.0/8', 'permit 10.0.0.0/8', 'DENY 10.0.0.0/8', '10.0.0.0/8', 'deny 10.0.0.0/-1', 'deny 10.0.0.0/0008'];
  for (const line of lines) assert.throws(() => parsePolicy(`${LIST}\n${line}\n`), /neither deny nor/, line);
  for (const list of ['', '\n\n', '# nothing\n', 'deny 10.0.0.0/8\n', 'allow 2000::/3\n']) {
    assert.throws(() => parsePolicy(list), /names no ranges/, list);
  }
});

test('blanks, remarks and other ends of lines do not matter', () => {
  const other = parsePolicy(LIST.replace(/ +/g, '\t  ').replace(/\n/g, '\r\n'));
  assert.equal(other('10.1.2.3').allowed, false);
  assert.equal(other('8.8.8.8').allowed, true);
  assert.equal(other('2606:4700:4700::1111').allowed, true);
});

test('a range covers what its length says', () => {
  const one = parsePolicy('deny 8.8.8.9/31 not aligned\ndeny 1.1.1.1/32\nallow 2a00::/13\ndeny 2a00:0:0:0:0:0:0:1/128\ndeny 2a00:0:0:8000::/49');
  const allowed = (address) => one(address).allowed;
  assert.deepEqual(['8.8.8.7', '8.8.8.8', '8.8.8.9', '8.8.8.10', '1.1.1.1', '1.1.1.2'].map(allowed), [true, false, false, true, false, true]);
  assert.deepEqual(['2a00::', '2a00::1', '2a07:ffff::', '2a08::', '2a00:0:0:7fff::', '2a00:0:0:8000::1', '2a00:0:0:ffff::'].map(allowed),
    [true, false, true, false, true, false, false]);
  const everything = parsePolicy('deny 0.0.0.0/0\nallow ::/0\ndeny ::1/128');
  assert.equal(everything('8.8.8.8').allowed, false);
  assert.equal(everything('5f00::1').allowed, true);
});
