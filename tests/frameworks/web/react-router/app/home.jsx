export const loader = () => ({ pid: process.pid });

export default function Home({ loaderData }) {
  return <p>{`pid=${loaderData.pid}`}</p>;
}
