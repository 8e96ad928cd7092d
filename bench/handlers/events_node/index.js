// A small event function.
exports.handler = (event, context, callback) => callback(null, event);
