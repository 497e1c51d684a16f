"""Drop-ins of the gateway, found by ``twisted.plugin``; see ``gateway.interfaces.IGatewayPlugin``.

Other distributions add theirs as modules in a folder ``gateway/plugins`` (without ``__init__.py``) on the
Python path.
"""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
