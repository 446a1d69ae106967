// Rows of a segment: Parquet, and for typed ones the text of each payload.

import { decompress } from 'fzstd'
import { parquetMetadata, parquetReadObjects } from 'hyparquet'

const PARQUET = {
  compressors: { ZSTD: (input, size) => decompress(input, new Uint8Array(size)) },
  parsers: {
    timestampFromMicroseconds: micros => micros,
    stringFromBytes: bytes => bytes && Buffer.from(bytes).toString(),
  },
}

/** Return the rows of a segment, payloads as text (F4). */
export async function rowsOf(file) {
  const rows = await parquetReadObjects({ ...PARQUET, file })
  const notes = parquetMetadata(file).key_value_metadata
  const schema = JSON.parse(notes.find(note => note.key === 'lakelog.fields')?.value ?? 'null')
  for (const row of schema ? rows : []) {
    if (row.fields) row.data = payload({ kind: 'object', ...schema }, row.fields, schema.spaced)
  }
  return rows
}

/** Return the JSON text of a value in a typed segment (F4.8). */
function payload(member, value, spaced) {
  const space = spaced ? ' ' : ''
  if (value === null || value === undefined) return 'null'
  if (member.kind === 'object') {
    const shown = member.members.filter(each => each.null || value[each.name] != null)
    const texts = shown.map(each =>
      `${quoted(each.name)}:${space}${payload(each, value[each.name], spaced)}`)
    return `{${texts.join(',' + space)}}`
  }
  if (member.kind === 'list') {
    return `[${value.map(each => payload(member.members[0], each, spaced)).join(',' + space)}]`
  }
  if (member.kind === 'text') return quoted(value)
  if (member.kind === 'words') return quoted(value.join(' '))
  if (member.kind === 'numbers') {
    let nth = 0
    return quoted(member.pieces.map(piece => typeof piece === 'string' ? piece
      : String(value[++nth]).padStart(piece, '0')).join(''))
  }
  if (member.kind === 'float') return float(value)
  if (member.kind === 'number') {
    return Number.isSafeInteger(value) ? String(value) : float(value)
  }
  if (!['int', 'bool', 'json'].includes(member.kind)) throw new Error(`kind ${member.kind}`)
  return String(value)
}

function quoted(text) {
  return JSON.stringify(text).replace(/\\(?:u(00..)|.)/g, (escape, hex) =>
    hex ? `\\u${hex.toUpperCase()}` : escape)
}

function float(value) { // JavaScript has the same digits, and other rules for exponents
  if (value === 0) return Object.is(value, -0) ? '-0.0' : '0.0'
  const [digits, power] = value.toExponential().split('e')
  if (power < -4 || power > 15) {
    return `${digits}e${power[0]}${power.slice(1).padStart(2, '0')}`
  }
  return Number.isInteger(value) ? `${value}.0` : `${value}`
}
