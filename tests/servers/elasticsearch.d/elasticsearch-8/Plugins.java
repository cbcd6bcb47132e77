import java.util.Map;
import org.elasticsearch.env.Environment;
import org.elasticsearch.plugins.PluginsLoader;

/** The modules and plugins of a home, in the words of Elasticsearch 8. */
final class Plugins {
    static PluginsLoader of(Environment environment) {
        return PluginsLoader.createPluginsLoader(
            PluginsLoader.loadModulesBundles(environment.modulesDir()),
            PluginsLoader.loadPluginsBundles(environment.pluginsDir()),
            Map.of()
        );
    }
}
