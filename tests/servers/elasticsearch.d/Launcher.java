import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginsLoader;

/** Starts an Elasticsearch node from its libraries, as the distribution's own start class would, less the parts that are not published. */
public final class Launcher {
    public static void main(String[] arguments) throws Exception {
        LogConfigurator.configureESLogging();
        // Its initializer names its subclasses, and theirs need it first: two threads that meet the first errors of a new node, one in
        // the class and one in a subclass, would wait for each other forever, and with them the master service.
        Class.forName("org.elasticsearch.ElasticsearchException");
        Settings home = Settings.builder().put("path.home", arguments[0]).build();
        Path config = Path.of(arguments[0], "config");
        Environment environment = InternalSettingsPreparer.prepareEnvironment(home, Map.of(), config, () -> "test");
        LogConfigurator.configure(environment, true);
        PluginsLoader plugins = PluginsLoader.createPluginsLoader(
            PluginsLoader.loadModulesBundles(environment.modulesDir(), true),
            PluginsLoader.loadPluginsBundles(environment.pluginsDir(), true),
            Map.of()
        );
        Node node = new Node(environment, plugins);
        CountDownLatch end = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try (node) {
                end.countDown();
            } catch (Exception closing) {
                closing.printStackTrace();
            }
        }));
        node.start();
        end.await();
    }
}
