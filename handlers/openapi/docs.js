"use strict";

// Swagger UI on this server's own description. Tokens are kept in memory alone.
SwaggerUIBundle({
	url: "api/openapi.yaml",
	dom_id: "#docs",
	presets: [SwaggerUIBundle.presets.apis],
	layout: "BaseLayout",
	deepLinking: true,
	displayRequestDuration: true,
	docExpansion: "list",
	filter: true,
	persistAuthorization: false,
	tryItOutEnabled: false,
	validatorUrl: null,
});
