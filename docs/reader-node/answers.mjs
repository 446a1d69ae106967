// Prints what a lake holds as the conformance kit asks (docs/conformance/README.md).
//
//     node answers.mjs LAKE

import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Lake, Refused } from './lake.mjs'

const EVENT = [
  'time', 'type', 'category', 'source', 'subject', 'level', 'message', 'data', 'id',
  'ingested_at', 'origin', 'position', 'seq',
]
const BAD_LINE = ['ingested_at', 'origin', 'position', 'reason', 'line']

const values = (row, columns) => columns.map(column => row[column] ?? null)
const bySeq = (a, b) => Number(a.seq) - Number(b.seq)

function digestOfRows(rows) {
  const hash = createHash('sha256')
  for (const row of rows) {
    const fields = row.map(v => v === null ? '-' : `${Buffer.byteLength(String(v))}:${v}`)
    hash.update(fields.join('') + '\n')
  }
  return hash.digest('hex')
}

/** Order of quarantined lines, but for their time; texts by the bytes of their UTF-8 (F1.2). */
function byPlace(a, b) {
  const at = a.findIndex((item, index) => index > 0 && item !== b[index])
  if (typeof a[at] === 'string') return Buffer.compare(Buffer.from(a[at]), Buffer.from(b[at]))
  return at < 0 ? 0 : Number(a[at]) - Number(b[at])
}

/** Whether a manifest is there: an older move may name one that is gone (F10.1). */
function isThere(lake, named) {
  const digest = lake.standIns[named] ?? named
  const file = join(lake.root, 'manifests', digest.slice(0, 2), `${digest}.json.zst`)
  return lake.carried.has(digest) || existsSync(file)
}

async function stateAnswer(lake, digest) {
  const state = lake.manifest(digest)
  const rows = (await lake.published(state, 'events')).sort(bySeq)
  const bad = await lake.published(state, 'quarantine')
  return {
    events: rows.length, quarantined: bad.length, keys: lake.keys(state).size,
    rows: digestOfRows(rows.map(row => values(row, EVENT))),
  }
}

async function branchAnswer(lake, branch) {
  const found = await lake.rows(branch)
  if (!found) return null
  const { move, tail } = found
  const quarantine = found.quarantine.map(row => values(row, BAD_LINE))
  return {
    move: move.number, generation: move.generation, state: move.snapshot,
    events: found.events.sort(bySeq).map(row => values(row, EVENT)),
    quarantine: quarantine.sort(byPlace),
    tail: {
      events: tail.events.length, quarantined: tail.quarantine.length, duplicates: tail.duplicates,
    },
  }
}

/** Return what `make` returns, or how the lake refused it. */
async function answer(make) {
  try {
    return await make()
  } catch (error) {
    if (error instanceof Refused) return error.answer
    throw error
  }
}

async function lakeAnswer(root) {
  const lake = new Lake(root)
  const [branches, tags, states] = [{}, {}, {}]
  const named = new Set()
  for (const branch of lake.branches()) {
    const found = await answer(() => branchAnswer(lake, branch))
    if (found) branches[branch] = found
    for (const move of lake.moves(branch)) named.add(move.snapshot)
  }
  for (const tag of lake.tags()) {
    tags[tag] = await answer(() => ({ state: lake.tag(tag).snapshot }))
    if (tags[tag].state) named.add(tags[tag].state)
  }
  for (const digest of [...named].filter(digest => isThere(lake, digest)).sort()) {
    states[digest] = await answer(() => stateAnswer(lake, digest))
  }
  return { format: lake.format, branches, tags, states }
}

/** JSON of a value; a BigInt is a number of as many digits as it has. */
function toJson(value) {
  if (typeof value === 'bigint') return String(value)
  if (Array.isArray(value)) return `[${value.map(toJson).join(',')}]`
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const members = Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}:${toJson(v)}`)
  return `{${members.join(',')}}`
}

console.log(toJson(await answer(() => lakeAnswer(process.argv[2]))))
