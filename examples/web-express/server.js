// A small service in Express: echoes what it is sent.
const express = require("express");

const app = express();
app.use(express.text({ type: "*/*" }));

app.get("/", (request, response) => {
  response.json({ framework: "express", node: process.version });
});

app.post("/echo", (request, response) => {
  response.type("text/plain").send(request.body);
});

const server = app.listen(process.env.PORT, () => console.log(`listening on ${process.env.PORT}`));

// The platform ends an instance by SIGTERM: answer what is under way, then go.
process.on("SIGTERM", () => server.close(() => process.exit(0)));
