// A reader of lakes that follows FORMAT.md; the numbers (F3.4) are those of its statements.
//
//     const lake = new Lake('/path/to/lake')
//     const { events, quarantine } = await lake.rows('main')
// It reads a lake at rest: nothing is sealed meanwhile, so it never has to start again (F12.3).
// Times are BigInt, as microseconds of the year 9999 are more than a double holds.

import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { decompress } from 'fzstd'
import { rowsOf } from './segment.mjs'

const [FORMAT, WAL_FORMAT, FILE_FORMAT, FLAGS, SEGMENT_BYTES] = [4, 4, 1, 15, 256_000_000]
const ALIASES = {
  timestamp: 'time', ts: 'time', '@timestamp': 'time', event_type: 'type',
  content_type: 'category', item_id: 'subject',
}

/** What stops a reader: `error` is `damaged` or `newer`, `file` the path below the lake. */
export class Refused extends Error {
  constructor(error, file) {
    super(`${file}: ${error}`)
    this.answer = { error, file }
  }
}

const sha256 = data => createHash('sha256').update(data).digest('hex')
const digits = (number, length) => String(number).padStart(length, '0')
const u32 = (data, at) => data.readUInt32LE(at)
const u64 = (data, at) => Number(data.readBigUInt64LE(at))
const unpacked = data => Buffer.from(decompress(data)) // frames state their size (F6.1)

export class Lake {
  constructor(root) {
    Object.assign(this, { root, carried: new Map() })
    const { format, settings, requires } = this.document('lakelog.json')
    Object.assign(this, { format, segmentRows: settings.segment_rows ?? 1_000_000 })
    const isNew = requires?.some(name => !['erasure', 'protect'].includes(name)) // F15.8
    if (format > FORMAT || isNew) throw new Refused('newer', 'lakelog.json')
    const isErased = this.names('erasures').includes('states.json')
    const { states, shards = [] } = isErased ? this.document('erasures/states.json') : {} // F23.1
    const files = shards.map(name => this.document(`erasures/${name}.shard`)) // F23.7
    this.standIns = Object.assign({}, states, ...files.map(file => file.states))
  }

  names(folder) { // F1.6, F1.7
    const path = join(this.root, folder)
    return existsSync(path) ? readdirSync(path).filter(n => !n.startsWith('.tmp-')).sort() : []
  }

  bytes(file) {
    if (!existsSync(join(this.root, file))) throw new Refused('damaged', file)
    return readFileSync(join(this.root, file))
  }

  /** Return the rows of a branch with its tail, null where there is no such branch (F12). */
  async rows(branch) {
    const wals = this.wals(branch)
    const move = this.head(branch) // after the WALs (F12.2)
    if (!move) return null
    const state = this.manifest(move.snapshot)
    const tail = this.tail(branch, wals, move)
    const { kept, duplicates } = deduplicated(tail.events, () => this.keys(state))
    kept.forEach((row, index) => { row.seq = state.next_seq + index })
    return {
      move, tail: { events: kept, quarantine: tail.quarantine, duplicates },
      events: [...await this.published(state, 'events'), ...kept],
      quarantine: [...await this.published(state, 'quarantine'), ...tail.quarantine],
    }
  }

  // --- documents, moves and tags (F2, F7) ---

  document(file) { return this.parseDocument(this.bytes(file), file) }

  /** Return the document at the start of some bytes; remember what it carries (F7.11). */
  parseDocument(data, file) {
    const end = data.indexOf(10) + 1
    const text = Buffer.concat([data.subarray(0, Math.max(end - 80, 0)), Buffer.from('}')])
    const ending = `,"checksum":"${sha256(text)}"}\n`
    if (data.subarray(end - 80, end).toString() !== ending) throw new Refused('damaged', file)
    const body = JSON.parse(text)
    const behind = data.subarray(end)
    if (!behind.length) return body
    const state = behind.subarray(0, -1)
    if (behind.at(-1) !== 10 || sha256(state) !== body.snapshot) throw new Refused('damaged', file)
    this.carried.set(body.snapshot, JSON.parse(state))
    return body
  }

  branches() { return this.names('refs/heads').map(name => decodeURIComponent(name)) }

  tags() { return this.names('refs/tags').map(name => decodeURIComponent(name.slice(0, -5))) }

  tag(name) { return this.ref(`refs/tags/${encodeName(name)}.json`, { name }) }

  move(branch, number) {
    const file = `refs/heads/${encodeName(branch)}/${digits(number, 12)}.json`
    return this.ref(file, { branch, number })
  }

  ref(file, place) {
    const body = this.document(file)
    const fits = Object.entries(place).every(([name, value]) => body[name] === value)
    if (!fits) throw new Refused('damaged', file)
    return body
  }

  /** Return the newest move of a branch, null where the branch does not exist (F11). */
  head(branch) {
    const folder = `refs/heads/${encodeName(branch)}`
    const numbers = this.names(folder).filter(n => /^\d{12}\.json$/.test(n)).map(n => parseInt(n))
    const newest = Math.max(0, ...numbers)
    let hinted = 0
    try {
      const hint = this.document(`${folder}/hint`)
      if (hint.branch === branch) hinted = hint.number
    } catch { /* one that is damaged or missing is ignored (F7.8) */ }
    if (hinted > newest) throw new Refused('damaged', `${folder}/${digits(hinted, 12)}.json`)
    const move = newest && this.move(branch, newest)
    return move && move.op !== 'delete' ? move : null
  }

  /** Return all moves of a branch that are kept and can be read, packed ones too (F7.9). */
  moves(branch) {
    const folder = `refs/heads/${encodeName(branch)}`
    const found = []
    for (const name of this.names(folder)) {
      try {
        if (name.startsWith('packed-')) found.push(...this.packed(`${folder}/${name}`))
        else if (name.endsWith('.json')) found.push(this.move(branch, parseInt(name)))
      } catch (error) {
        if (!(error instanceof Refused)) throw error
      }
    }
    return found
  }

  packed(file) {
    const data = this.bytes(file)
    if (sha256(data.subarray(0, -32)) !== data.subarray(-32).toString('hex')) {
      throw new Refused('damaged', file)
    }
    const text = unpacked(data.subarray(0, -44)).toString()
    const files = text.split(/^(?={"number":)/m).filter(part => part.startsWith('{"number":'))
    return files.map(part => this.parseDocument(Buffer.from(part), file))
  }

  // --- manifests and segments (F4, F6) ---

  object(kind, digest, ending, size) {
    const file = `${kind}/${digest.slice(0, 2)}/${digest}${ending}`
    const data = this.bytes(file)
    const fits = sha256(data) === digest && (size === undefined || size === data.length)
    if (!fits) throw new Refused('damaged', file)
    return data
  }

  manifest(named, size, digest = this.standIns[named] ?? named) {
    const body = this.carried.get(digest) ??
      JSON.parse(unpacked(this.object('manifests', digest, '.json.zst', size)))
    if (body.format > FILE_FORMAT || body.requires) throw new Refused('newer', `manifests/${digest}`)
    return body
  }

  /** Return the live segment entries of a manifest, oldest first (F6.6). */
  segments(state) {
    const pages = state.pages.map(page => this.manifest(page.digest, page.bytes).entries)
    const live = new Map()
    for (const entry of [...pages.flat(), ...state.tail]) {
      if ((entry.add ?? entry.del) !== 'segment') continue
      live.delete(entry.key)
      if (entry.add) live.set(entry.key, entry)
    }
    return [...live.values()]
  }

  /** Return the rows of a manifest of one kind (F12.7); each checked against its digest. */
  async published(state, kind) {
    const found = []
    for (const entry of this.segments(state).filter(e => e.kind === kind)) {
      const data = this.object('segments', entry.key, '.parquet', entry.bytes)
      const rows = await rowsOf(new Uint8Array(data).buffer)
      rows.forEach((row, index) => {
        if (entry.layout === 'arrival' && kind === 'events') row.seq = entry.seq[0] + index
        found.push(row)
      })
    }
    return found
  }

  /** Return the identity keys of a manifest, 24 hex digits each (F5). */
  keys(state) {
    const keys = new Set()
    for (const run of state.ids) {
      const data = this.object('ids', run.digest, '.ids', run.bytes)
      const count = u64(data, 8)
      for (let i = 0; i < count; i++) {
        const high = data.readBigUInt64LE(64 + 8 * i).toString(16).padStart(16, '0')
        keys.add(high + u32(data, 64 + 8 * count + 4 * i).toString(16).padStart(8, '0'))
      }
    }
    return keys
  }

  // --- write-ahead logs (F3, F12) ---

  /** Return the WAL files of each writer in the order of `n` (F12.1). */
  wals(branch) {
    const folder = `wal/${encodeName(branch)}`
    const writers = new Map()
    for (const name of this.names(folder)) {
      if (!/^[0-9a-f]{32}-\d{6}\.jsonl\.zst$/.test(name)) continue
      const wal = this.wal(`${folder}/${name}`)
      writers.set(wal.writer, [...(writers.get(wal.writer) ?? []), wal])
    }
    return writers
  }

  /** Read the header and the good frames of a WAL; what is torn at its end is left out (F14.1). */
  wal(file) {
    const data = this.bytes(file)
    const start = data.length < 16 ? 0 : 8 + u32(data, 4)
    const text = data.subarray(16, start)
    const fits = start >= 16 && start <= data.length && u32(data, 0) === 0x184d2a5a &&
      data.subarray(8, 12).toString() === 'LKW1' && u32(data, 12) === crc32(text)
    if (!fits) throw new Refused('damaged', file)
    const header = JSON.parse(text)
    if (header.format > WAL_FORMAT || header.requires) throw new Refused('newer', file)
    const name = `${header.writer}-${digits(header.n, 6)}.jsonl.zst`
    if (file !== `wal/${encodeName(header.branch)}/${name}`) throw new Refused('damaged', file)
    const frames = []
    let at = start
    for (let frame; (frame = frameAt(data, at)); at = frame.end) {
      if (frame.flags & ~FLAGS) throw new Refused('newer', file)
      frames.push(frame)
    }
    const rest = data.subarray(at)
    if (!frames.length || (!isEnd(rest) && isFollowed(rest))) throw new Refused('damaged', file)
    return { ...header, file, frames }
  }

  /** Return the frames of a writer above its watermark (F12.4). */
  above(branch, wals, watermark) {
    let mark = watermark
    if (mark === undefined) { // steps 1 and 2
      mark = wals[0].first - 1
      let sealed = mark
      while (wals[0].doubtful.includes(sealed)) sealed--
      const known = sealed < 0 ||
        this.moves(branch).some(move => (move.wal[wals[0].writer] ?? -1) >= sealed)
      if (!known) throw new Refused('damaged', wals[0].file)
    }
    const frames = new Map()
    for (const frame of wals.flatMap(wal => wal.frames)) { // step 3
      if (!frames.has(frame.sequence)) frames.set(frame.sequence, frame)
    }
    const doubtful = new Set(wals.flatMap(wal => wal.doubtful))
    const highest = Math.max(mark, ...frames.keys(), ...wals.map(wal => wal.first - 1)) // step 4
    const taken = []
    for (let s = mark + 1; s <= highest; s++) { // step 5
      if (frames.has(s)) taken.push(frames.get(s))
      else if (!doubtful.has(s)) throw new Refused('damaged', wals[0].file)
    }
    return taken
  }

  /** Return the rows of a branch's tail: events and quarantined lines (F12.5). */
  tail(branch, read, move) {
    const started = wals => [Math.min(...wals.map(wal => wal.started)), wals[0].writer]
    const writers = [...read.values()].sort((a, b) => byOrder(started(a), started(b)))
    const frames = writers.flatMap((wals, rank) => {
      const { writer } = wals[0]
      let last = 0n
      return this.above(branch, wals, move.wal[writer]).map(frame => {
        last = frame.when > last ? frame.when : last
        return { ...frame, writer, rank, arrival: [last, writer, frame.sequence] }
      })
    })
    const events = []
    const quarantine = []
    for (const frame of inSealingOrder(frames, this.segmentRows)) {
      const lines = unpacked(frame.payload).toString().split('\n').slice(0, -1)
      lines.forEach((line, index) => {
        const position = frame.position + index
        const place = { ingested_at: frame.when, origin: frame.writer, position }
        if (frame.flags & 4) quarantine.push({ ...place, ...JSON.parse(line) })
        else {
          const order = [frame.when, frame.writer, frame.sequence, index]
          const row = parseLine(line, frame.flags & 1)
          const own = frame.flags & 8 && row.version && // F13.6
            { origin: `stream:${row.subject}`, position: Number(row.version) }
          events.push({ ...row, ...place, ...own, order })
        }
      })
    }
    return { events, quarantine }
  }
}

/** Return where the zstd frame of an intact frame head begins and ends, else null (F3.4). */
function headAt(data, at) {
  if (data.length - at < 64 || u32(data, at) !== 0x184d2a5b) return null
  const cursor = u32(data, at + 56)
  const start = at + 64 + cursor
  const fits = data.subarray(at + 8, at + 12).toString() === 'LKF1' && start <= data.length &&
    u32(data, at + 4) === 56 + cursor &&
    u32(data, start - 4) === crc32(data.subarray(at, start - 4))
  return fits ? { start, end: start + u32(data, at + 20) } : null
}

/** Return the good frame at a byte, null where there is none (F3.5). */
function frameAt(data, at) {
  const head = headAt(data, at)
  if (!head || head.end > data.length) return null
  const payload = data.subarray(head.start, head.end)
  if (crc32(payload) !== u32(data, at + 52)) return null
  return {
    payload, end: head.end, sequence: u64(data, at + 12), flags: u32(data, at + 32),
    raw: u32(data, at + 24), events: u32(data, at + 28),
    position: u64(data, at + 36), when: data.readBigInt64LE(at + 44),
  }
}

const isZero = bytes => bytes.every(byte => byte === 0)
function isEnd(rest) { // F3.7, F3.16
  if (isZero(rest)) return true
  if (rest.length > 7 && u32(rest, 0) === 0x184d2a5e && isZero(rest.subarray(8))) return true
  return rest.length >= 24 && u32(rest, 0) === 0x184d2a5c && u32(rest, 4) === 16 &&
    rest.subarray(8, 12).toString() === 'LKE1' && isZero(rest.subarray(24)) &&
    u32(rest, 20) === crc32(rest.subarray(0, 20))
}

/** Whether a bad frame has a good one, END or more than the head of space after it (F14.2). */
function isFollowed(rest) {
  if (!isZero(rest.subarray((headAt(rest, 0)?.end ?? rest.length) + 8))) return true
  for (let at = 1; at < rest.length - 23; at++) {
    if (frameAt(rest, at) || (u32(rest, at) === 0x184d2a5c && isEnd(rest.subarray(at)))) return true
  }
  return false
}

/** Return the columns of a line and its identity key (F3.13, F13). */
function parseLine(line, keyed) {
  const cut = line.indexOf(',"data":')
  const given = JSON.parse(cut < 0 ? line : line.slice(0, cut) + '}')
  const row = {}
  for (const [name, value] of Object.entries(given)) row[ALIASES[name] ?? name] = value
  const data = cut < 0 ? 'null' : line.slice(cut + 8, -1)
  row.data = data === 'null' ? null : data
  row.time = micros(row.time)
  if (!keyed) row.key = null
  else if (!row.key && row.id) row.key = sha256(`${row.source ?? ''}\0${row.id}`).slice(0, 24)
  return row
}

function micros(text) { // F1.2
  const [, seconds, fraction] = /^(.{19})(?:\.(\d{1,6}))?Z$/.exec(text)
  return BigInt(Date.parse(seconds + 'Z')) * 1000n + BigInt((fraction ?? '').padEnd(6, '0'))
}

function encodeName(name) { // F1.4
  return [...Buffer.from(name)].map(byte => {
    const char = String.fromCharCode(byte)
    return /[a-z0-9._-]/.test(char) ? char : '%' + byte.toString(16).padStart(2, '0')
  }).join('').replace(/^\./, '%2e')
}

/** Return frames as they would be sealed: segment by segment, in each writer by writer (F12.5). */
function inSealingOrder(frames, rowsMax) {
  const segments = []
  let [rows, size] = [Infinity, 0]
  for (const frame of frames.sort((a, b) => byOrder(a.arrival, b.arrival))) {
    rows += frame.events
    size += frame.raw
    if (rows > rowsMax || size > SEGMENT_BYTES) {
      [rows, size] = [frame.events, frame.raw]
      segments.push([])
    }
    segments.at(-1).push(frame)
  }
  return segments.flatMap(part => part.sort((a, b) => a.rank - b.rank || a.sequence - b.sequence))
}

/** Return the rows of a tail that count, and the places of those that do not (F12.6). */
function deduplicated(rows, keys) {
  const keyed = rows.filter(row => row.key).sort((a, b) => byOrder(a.order, b.order))
  const seen = keyed.length ? keys() : new Set()
  const dropped = new Set(keyed.filter(row => seen.has(row.key) || !seen.add(row.key)))
  const duplicates = [...dropped].map(row => [row.origin, row.position]).sort(byOrder)
  return { kept: rows.filter(row => !dropped.has(row)), duplicates }
}

/** Order of lists by their first items that differ: numbers, or texts of ASCII. */
function byOrder(a, b) {
  const at = a.findIndex((item, index) => item !== b[index])
  return at < 0 ? 0 : a[at] < b[at] ? -1 : 1
}
