"""What can go wrong with a server."""


class DeviceBuilderError(Exception):
    """The server cannot be used; the message is a sentence for a person."""


class CannotConnectError(DeviceBuilderError):
    """Nothing that answers as a server should can be reached, or not any more."""


class ProtocolError(CannotConnectError):
    """What answers does not keep to the protocol."""


class TooMuchError(ProtocolError):
    """The server sent more in one message than is taken."""


class InvalidAuthError(DeviceBuilderError):
    """The server does not accept the user name and the password."""


class UnsupportedVersionError(DeviceBuilderError):
    """The server is too old."""


class CommandError(DeviceBuilderError):
    """The server refused a command; the message is its own."""

    def __init__(self, code: str, details: str) -> None:
        """Note the server's words."""
        super().__init__(details or code)
        self.code = code
