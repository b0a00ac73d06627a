// Checked, not run: what a bundler, and TypeScript before it knew `exports`, resolve.
import { connect, type Stream, type ClusterdEvent } from 'clusterd';
import { isClusterd } from 'clusterd/worker';

export async function first(): Promise<number> {
  const events: Stream<ClusterdEvent> = (await connect()).events();
  const { value, done } = await events.next();
  return done ? 0 : value.id + Number(isClusterd);
}
