//! What a RabbitMQ may do to its clients.
