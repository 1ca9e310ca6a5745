// Shows /openapi.json. The key that a reader enters is kept in this page alone, until it is closed.
SwaggerUIBundle({
  dom_id: "#api",
  url: "/openapi.json",
  validatorUrl: null, // Else it would send the address of the document to a service on the internet.
  persistAuthorization: false,
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
});
