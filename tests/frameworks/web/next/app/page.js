// Rendered for each request, so that the page tells who renders it.
export const dynamic = 'force-dynamic';

export default function Page() {
  return <p>{`pid=${process.pid}`}</p>;
}
